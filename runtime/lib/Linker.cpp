//===- Linker.cpp - from templates and a plan to launches -----------------===//
#include "isthmus/runtime/Linker.h"

#include "isthmus/runtime/KernelABI.h"

#include <algorithm>
#include <set>

using namespace isthmus;
using namespace isthmus::rt;

namespace {
constexpr uint64_t kAlignment = 64;

uint64_t bytesOf(const bundle::Buffer &buffer, const StepLimits &limits) {
  uint64_t rows =
      buffer.rows() == bundle::TOKENS ? limits.tokens : limits.outputs;
  return (buffer.row_bytes() * rows + kAlignment - 1) / kAlignment * kAlignment;
}

bool belongs(const bundle::Launch &launch, Regime regime) {
  return launch.steps() !=
         (regime == Regime::Small ? bundle::LARGE : bundle::SMALL);
}

/// Addresses of one template's temporaries, relative to the region they share,
/// and those of each thread's own, relative to the thread's region.
struct TemplateLayout {
  std::vector<uint64_t> offsets;
  uint64_t bytes = 0, privateBytes = 0;
};

bool isPrivate(const bundle::Buffer &buffer, Regime regime) {
  return regime == Regime::Small && buffer.per_thread();
}

bool waits(const bundle::Launch &launch, Regime regime) {
  return launch.wait() &&
         (regime == Regime::Large || !launch.wait_large_only());
}

/// Temporaries live from the phase of their first launch to that of their last
/// (a phase ends at a launch that waits: until then, launches overlap). Two
/// temporaries share memory only if no phase has both.
TemplateLayout layOut(const bundle::Template &block, const StepLimits &limits,
                      Regime regime) {
  struct Life {
    int first = -1, last = -1;
  };
  std::vector<Life> lives(size_t(block.buffers_size()));
  int phase = 0;
  for (const auto &launch : block.launches()) {
    if (!belongs(launch, regime))
      continue;
    phase += waits(launch, regime) ? 1 : 0;
    for (const auto &operand : launch.operands())
      if (operand.kind() == bundle::Operand::BUFFER) {
        Life &life = lives[operand.index()];
        if (life.first < 0)
          life.first = phase;
        life.last = phase;
      }
  }
  TemplateLayout layout;
  layout.offsets.resize(lives.size());
  struct Placed {
    uint64_t offset, size;
    Life life;
  };
  std::vector<Placed> placedShared, placedPrivate;
  for (int i = block.has_input() ? 1 : 0; i < block.buffers_size(); ++i) {
    Life life = lives[size_t(i)];
    if (uint32_t(i) == block.output() || life.first < 0)
      continue;
    uint64_t size = bytesOf(block.buffers(i), limits);
    const bool own = isPrivate(block.buffers(i), regime);
    std::vector<Placed> &placed = own ? placedPrivate : placedShared;
    // First fit among those alive at the same time, which are kept sorted.
    uint64_t offset = 0;
    for (const Placed &other : placed)
      if (other.life.first <= life.last && life.first <= other.life.last &&
          offset < other.offset + other.size && other.offset < offset + size)
        offset = other.offset + other.size;
    layout.offsets[size_t(i)] = offset;
    uint64_t &bytes = own ? layout.privateBytes : layout.bytes;
    bytes = std::max(bytes, offset + size);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), offset,
                                   [](uint64_t value, const Placed &p) {
                                     return value < p.offset;
                                   }),
                  {offset, size, life});
  }
  return layout;
}

/// Calls may share a state: it has then the pages of the largest.
void addState(LinkedStage &stage, uint32_t state, uint64_t pageBytes) {
  auto known = std::ranges::find(stage.states, state,
                                 &std::pair<uint32_t, uint64_t>::first);
  if (known == stage.states.end())
    known = stage.states.insert(known, {state, 0});
  const uint64_t largest = std::max(known->second, pageBytes);
  stage.pageBytes += largest - known->second;
  known->second = largest;
}
} // namespace

uint64_t LinkedStage::peakBytes(uint64_t positions, unsigned threads) const {
  const uint64_t pages =
      pagesInGroups((positions + kPagePositions - 1) / kPagePositions);
  return weightBytes + arenaBytes + (scratchBytes + privateBytes) * threads +
         pageBytes * pages;
}

LinkedStage rt::linkStage(const bundle::Manifest &manifest,
                          const bundle::Plan &plan, int stage,
                          const StepLimits &limits, Regime regime) {
  const bool small = regime == Regime::Small;
  const StepLimits rows =
      small ? StepLimits{std::min(limits.tokens, kSmallStepRows),
                         std::min(limits.outputs, kSmallStepRows)}
            : limits;
  const bundle::Program &program = manifest.programs(int(plan.program()));
  const bundle::Stage &own = plan.stages(stage);
  LinkedStage result;

  // Values between calls alternate between two slots; temporaries of all calls
  // share one region, since the first launch of each call waits.
  uint64_t slotBytes = 0, temporaryBytes = 0;
  std::vector<TemplateLayout> layouts;
  for (const auto &block : manifest.templates())
    layouts.push_back(layOut(block, rows, regime));
  for (uint32_t c = own.first_call(); c < own.first_call() + own.calls(); ++c) {
    uint32_t index = program.calls(int(c)).template_();
    const bundle::Template &block = manifest.templates(int(index));
    if (block.has_input())
      slotBytes = std::max(slotBytes, bytesOf(block.buffers(0), limits));
    slotBytes = std::max(slotBytes,
                         bytesOf(block.buffers(int(block.output())), limits));
    temporaryBytes = std::max(temporaryBytes, layouts[index].bytes);
    result.privateBytes =
        std::max(result.privateBytes, layouts[index].privateBytes);
  }
  const uint64_t temporaries = 2 * slotBytes;
  result.arenaBytes = temporaries + temporaryBytes;
  std::set<uint32_t> weights;
  uint64_t in = 0, out = slotBytes;
  for (uint32_t c = own.first_call(); c < own.first_call() + own.calls(); ++c) {
    const bundle::Call &call = program.calls(int(c));
    const bundle::Template &block = manifest.templates(int(call.template_()));
    const TemplateLayout &layout = layouts[call.template_()];
    const bundle::Buffer &outBuffer = block.buffers(int(block.output()));
    if (c == own.first_call() && block.has_input()) {
      result.hasInput = true;
      result.input = {in, block.buffers(0).row_bytes(),
                      block.buffers(0).rows()};
    }
    for (const auto &launch : block.launches()) {
      if (!belongs(launch, regime))
        continue;
      LinkedLaunch linked{&launch,
                          {},
                          launch.tiles(),
                          std::max<uint64_t>(1, launch.rows_per_tile()),
                          launch.per_partition(),
                          waits(launch, regime),
                          small && launch.replicate(),
                          launch.rows(),
                          c};
      for (const auto &operand : launch.operands()) {
        uint32_t i = operand.index();
        switch (operand.kind()) {
        case bundle::Operand::WEIGHT:
          linked.operands.push_back(
              {LinkedOperand::Kind::Weight, call.weights(int(i))});
          break;
        case bundle::Operand::STATE:
          linked.operands.push_back(
              {LinkedOperand::Kind::State, uint64_t(call.state())});
          break;
        default:
          if (i == block.output())
            linked.operands.push_back({LinkedOperand::Kind::Arena, out});
          else if (block.has_input() && i == 0)
            linked.operands.push_back({LinkedOperand::Kind::Arena, in});
          else if (isPrivate(block.buffers(int(i)), regime))
            linked.operands.push_back(
                {LinkedOperand::Kind::Private, layout.offsets[i]});
          else
            linked.operands.push_back(
                {LinkedOperand::Kind::Arena, temporaries + layout.offsets[i]});
        }
      }
      result.scratchBytes =
          std::max<uint64_t>(result.scratchBytes, launch.scratch_bytes());
      result.launches.push_back(std::move(linked));
    }
    weights.insert(call.weights().begin(), call.weights().end());
    if (call.state() >= 0)
      addState(result, uint32_t(call.state()), block.kv_page_bytes());
    result.output = {out, outBuffer.row_bytes(), outBuffer.rows()};
    std::swap(in, out);
  }
  result.weights.assign(weights.begin(), weights.end());
  for (uint32_t weight : result.weights)
    result.weightBytes += manifest.weights(int(weight)).size();
  if (small)
    return result;
  // One memory plan serves both regimes.
  LinkedStage other = linkStage(manifest, plan, stage, limits, Regime::Small);
  result.arenaBytes = std::max(result.arenaBytes, other.arenaBytes);
  result.scratchBytes = std::max(result.scratchBytes, other.scratchBytes);
  result.privateBytes = other.privateBytes;
  return result;
}
