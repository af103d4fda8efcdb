//===- KernelSchedule.cpp - the choices of a kernel generator -------------===//
#include "isthmus/Target/KernelSchedule.h"

#include "isthmus/runtime/Error.h"

#include <charconv>

using namespace isthmus;
using S = KernelSchedule;

std::span<const ScheduleField> isthmus::scheduleFields() {
  auto none = [](const S &) -> int64_t { return 0; };
  // Sums, and beside them weights and a row's value.
  auto floatProducts = [](const S &s) {
    return s.floatRows * s.floatPanels + s.floatPanels + 1;
  };
  auto wholeProducts = [](const S &s) {
    return s.wholeRows * s.wholePanels + s.wholePanels + 1;
  };
  auto wholeTiles = [](const S &s) -> int64_t {
    return s.wholeRows < kTileRows
               ? 0
               : tileRegistersFor(s.wholeRows, s.wholePanels);
  };
  static const std::vector<ScheduleField> fields = {
      {"dot_rows",
       &S::dotRows,
       {2, 4, 6, 8, 12, 16},
       ScheduleField::Prefill,
       {"int8"},
       [](const S &s) { return s.dotRows + 2; }},
      {"nibble_rows",
       &S::nibbleRows,
       {2, 4, 6, 8, 12},
       ScheduleField::Prefill,
       {"int4"},
       [](const S &s) { return s.nibbleRows + 2; }},
      {"unroll_groups",
       &S::unrollGroups,
       {0, 1},
       ScheduleField::Prefill,
       {"int8", "int4"},
       none},
      {"whole_rows",
       &S::wholeRows,
       {4, 6, 8, 12, 16, 32},
       ScheduleField::Prefill,
       {"int8-row"},
       wholeProducts,
       wholeTiles},
      {"whole_panels",
       &S::wholePanels,
       {1, 2},
       ScheduleField::Prefill,
       {"int8-row"},
       wholeProducts,
       wholeTiles},
      {"float_rows",
       &S::floatRows,
       {4, 6, 8, 12},
       ScheduleField::Prefill,
       {"f32"},
       floatProducts},
      {"pair_rows",
       &S::pairRows,
       {4, 6, 8, 12},
       ScheduleField::Prefill,
       {"bf16"},
       [](const S &s) {
         return s.pairRows * s.floatPanels + s.floatPanels + 1;
       }},
      {"float_panels",
       &S::floatPanels,
       {1, 2},
       ScheduleField::Prefill,
       {"bf16", "f32"},
       floatProducts},
      {"attention_queries",
       &S::attentionQueries,
       {2, 3, 4, 6, 8, 12},
       ScheduleField::Prefill,
       {"int8"},
       none},
      {"attention_sums",
       &S::attentionSums,
       {2, 4, 6, 8, 12, 16, 24},
       ScheduleField::Prefill,
       {"int8"},
       [](const S &s) { return s.attentionSums + 2; }},
      {"tile_bytes",
       &S::tileBytes,
       {224 << 10, 448 << 10, 896 << 10},
       ScheduleField::Prefill,
       {"int8", "bf16"},
       none},
      {"panels",
       &S::panels,
       {1, 2, 4},
       ScheduleField::Decode,
       {"int4", "int8"},
       [](const S &s) { return s.panels + 3; }},
      {"prefetch_farthest",
       &S::prefetchFarthest,
       {16 << 10, 64 << 10, 256 << 10},
       ScheduleField::Decode,
       {"int4", "int8"},
       none},
      {"prefetch_near",
       &S::prefetchNear,
       {512, 1 << 10, 2 << 10, 4 << 10},
       ScheduleField::Decode,
       {"int4", "bf16"},
       none},
  };
  return fields;
}

std::string isthmus::toString(const KernelSchedule &schedule) {
  std::string text;
  for (const ScheduleField &field : scheduleFields())
    text += (text.empty() ? "" : ",") + std::string(field.name) + "=" +
            std::to_string(schedule.*field.value);
  return text;
}

void isthmus::parseSchedule(std::string_view text, KernelSchedule &schedule) {
  constexpr int64_t kMost = 64 << 20, kMostRegisters = 64;
  while (!text.empty()) {
    std::string_view entry = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), entry.size() + 1));
    const size_t equals = entry.find('=');
    std::string_view name = entry.substr(0, equals);
    const ScheduleField *found = nullptr;
    std::string known;
    for (const ScheduleField &field : scheduleFields()) {
      known += std::string(known.empty() ? "" : ", ") + field.name;
      if (name == field.name)
        found = &field;
    }
    if (!found)
      throw rt::Error("a schedule has no '{}'; known: {}", name, known);
    int64_t value = -1;
    if (equals != entry.npos) {
      const char *end = entry.data() + entry.size();
      auto parsed = std::from_chars(entry.data() + equals + 1, end, value);
      if (parsed.ec != std::errc() || parsed.ptr != end)
        value = -1;
    }
    const int64_t least = found->candidates.front() == 0 ? 0 : 1;
    const int64_t most = found->candidates.back() > kMostRegisters
                             ? kMost
                             : std::max<int64_t>(16, found->candidates.back());
    if (value < least || value > most)
      throw rt::Error("'{}' in a schedule: {} takes a number from {} to {}",
                      entry, name, least, most);
    schedule.*found->value = value;
  }
}
