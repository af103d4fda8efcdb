//===- Texts.cpp - operators on texts -------------------------------------===//
#include "../Regex.h"
#include "Operators.h"
#include "Pieces.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>
#include <utf8proc.h>

using namespace isthmus::rt;

static const std::vector<std::string> &textsOf(const Tensor &tensor) {
  if (tensor.type != DataType::String)
    throw Error("texts are needed, not {}", nameOf(tensor.type));
  return *tensor.texts;
}

/// Calls `use` with the places of each pair of texts, broadcast together, and
/// that of the result; returns the result's sizes.
static std::vector<int64_t>
forEachPair(const Tensor &a, const Tensor &b,
            const std::function<void(size_t, size_t, size_t)> &use) {
  const size_t rank = std::max(a.sizes.size(), b.sizes.size());
  std::vector<int64_t> sizes(rank, 1), stepA(rank), stepB(rank);
  auto prepare = [&](const Tensor &tensor, std::vector<int64_t> &steps) {
    int64_t step = 1;
    for (size_t d = tensor.sizes.size(); d-- > 0;) {
      const size_t out = d + rank - tensor.sizes.size();
      const int64_t size = tensor.sizes[d];
      if (size != 1) {
        if (sizes[out] != 1 && sizes[out] != size)
          throw Error("sizes {} and {} do not fit", sizes[out], size);
        sizes[out] = size;
        steps[out] = step;
      }
      step *= size;
    }
  };
  prepare(a, stepA);
  prepare(b, stepB);
  int64_t count = 1;
  for (int64_t size : sizes)
    count *= size;
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i, atA = 0, atB = 0;
    for (size_t d = rank; d-- > 0; rest /= sizes[d]) {
      atA += rest % sizes[d] * stepA[d];
      atB += rest % sizes[d] * stepB[d];
    }
    use(size_t(atA), size_t(atB), size_t(i));
  }
  return sizes;
}

static void concat(HostCall &call) {
  const auto &a = textsOf(call.tensor(0)), &b = textsOf(call.tensor(1));
  std::vector<std::string> joined;
  Tensor result = Tensor::allocate(DataType::String,
                                   forEachPair(call.tensor(0), call.tensor(1),
                                               [&](size_t i, size_t j, size_t) {
                                                 joined.push_back(a[i] + b[j]);
                                               }));
  *result.texts = std::move(joined);
  call.outputs[0] = std::move(result);
}

/// As Python's str.split: without a delimiter, runs of spaces separate.
static std::vector<std::string>
splitText(const std::string &text, const std::string &delimiter, int64_t most) {
  std::vector<std::string> parts;
  const bool spaces = delimiter.empty();
  const char *kSpaces = " \t\n\r\f\v";
  size_t at = spaces ? text.find_first_not_of(kSpaces) : 0;
  while (at != std::string::npos) {
    size_t end =
        spaces ? text.find_first_of(kSpaces, at) : text.find(delimiter, at);
    if (int64_t(parts.size()) == most)
      end = std::string::npos;
    std::string part =
        text.substr(at, end == std::string::npos ? end : end - at);
    if (spaces && end == std::string::npos)
      part.erase(part.find_last_not_of(kSpaces) + 1);
    parts.push_back(std::move(part));
    if (end == std::string::npos)
      break;
    at = spaces ? text.find_first_not_of(kSpaces, end) : end + delimiter.size();
  }
  return parts;
}

static void split(HostCall &call) {
  const Tensor &input = call.tensor(0);
  const int64_t most = call.integer("maxsplit", -1);
  std::vector<std::vector<std::string>> all;
  size_t longest = 0;
  for (const std::string &text : textsOf(input)) {
    // An empty text has no parts, whatever separates them.
    all.push_back(text.empty() && call.text("delimiter", "").empty()
                      ? std::vector<std::string>()
                      : splitText(text, call.text("delimiter", ""), most));
    longest = std::max(longest, all.back().size());
  }
  std::vector<int64_t> sizes = input.sizes;
  Tensor counts = Tensor::allocate(DataType::I64, sizes);
  sizes.push_back(int64_t(longest));
  Tensor parts = Tensor::allocate(DataType::String, sizes);
  for (size_t i = 0; i < all.size(); ++i) {
    counts.as<int64_t>()[i] = int64_t(all[i].size());
    std::ranges::move(all[i], parts.texts->begin() + ptrdiff_t(i * longest));
  }
  call.outputs[0] = std::move(parts);
  if (call.outputs.size() > 1)
    call.outputs[1] = std::move(counts);
}

static std::string changeCase(const std::string &text, bool upper) {
  std::string result;
  const auto *bytes = reinterpret_cast<const utf8proc_uint8_t *>(text.data());
  for (size_t at = 0; at < text.size();) {
    utf8proc_int32_t point = 0;
    const auto length = utf8proc_iterate(
        bytes + at, utf8proc_ssize_t(text.size() - at), &point);
    if (length <= 0)
      throw Error("a text is not UTF-8");
    utf8proc_uint8_t encoded[4];
    const auto written = utf8proc_encode_char(
        upper ? utf8proc_toupper(point) : utf8proc_tolower(point), encoded);
    result.append(reinterpret_cast<char *>(encoded), size_t(written));
    at += size_t(length);
  }
  return result;
}

static void normalize(HostCall &call) {
  const Tensor &input = call.tensor(0);
  const std::string change = call.text("case_change_action", "NONE");
  const bool sensitive = call.integer("is_case_sensitive", 0);
  std::vector<std::string> stop;
  if (const auto *words = call.attribute("stopwords"))
    for (const std::string &word : words->texts())
      stop.push_back(sensitive ? word : changeCase(word, false));
  std::vector<std::string> kept;
  for (const std::string &text : textsOf(input))
    if (std::ranges::find(stop, sensitive ? text : changeCase(text, false)) ==
        stop.end())
      kept.push_back(change == "NONE" ? text
                                      : changeCase(text, change == "UPPER"));
  if (kept.empty())
    kept.emplace_back();
  std::vector<int64_t> sizes = input.sizes;
  if (sizes.empty())
    throw Error("a list of texts is needed");
  sizes.back() = int64_t(kept.size());
  Tensor result = Tensor::allocate(DataType::String, sizes);
  if (result.count() != int64_t(kept.size()))
    throw Error("one list of texts is needed");
  *result.texts = std::move(kept);
  call.outputs[0] = std::move(result);
}

static void fullMatch(HostCall &call) {
  const Tensor &input = call.tensor(0);
  Regex pattern("\\A(?:" + call.text("pattern", "") + ")\\z");
  Tensor result = Tensor::allocate(DataType::Bool, input.sizes);
  for (size_t i = 0; i < textsOf(input).size(); ++i)
    result.as<uint8_t>()[i] = pattern.matches(textsOf(input)[i]);
  call.outputs[0] = std::move(result);
}

/// A number as Python writes it; the shortest that reads back as the same.
template <typename T> static std::string toText(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    if (std::isnan(value))
      return "NaN";
    if (std::isinf(value))
      return value < 0 ? "-INF" : "INF";
  }
  char buffer[64];
  auto end = std::to_chars(buffer, buffer + sizeof(buffer), value).ptr;
  return {buffer, end};
}

template <typename T> static T toNumber(const std::string &text) {
  std::string lower = text;
  std::ranges::transform(lower, lower.begin(),
                         [](char c) { return char(std::tolower(c)); });
  if constexpr (std::is_floating_point_v<T>) {
    if (lower == "nan")
      return T(NAN);
    if (lower == "inf" || lower == "+inf" || lower == "-inf")
      return lower[0] == '-' ? T(-INFINITY) : T(INFINITY);
  }
  T value{};
  const char *begin = text.data() + (text.starts_with('+') ? 1 : 0);
  auto [end, error] = std::from_chars(begin, text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw Error("'{}' is not a number of its type", text);
  return value;
}

/// Calls `use` with a null pointer to the C++ type of `type`.
template <typename Use> static void withNumber(DataType type, Use use) {
  switch (type) {
  case DataType::F32:
    return use(static_cast<float *>(nullptr));
  case DataType::F64:
    return use(static_cast<double *>(nullptr));
  case DataType::I8:
    return use(static_cast<int8_t *>(nullptr));
  case DataType::U8:
    return use(static_cast<uint8_t *>(nullptr));
  case DataType::I16:
    return use(static_cast<int16_t *>(nullptr));
  case DataType::U16:
    return use(static_cast<uint16_t *>(nullptr));
  case DataType::I32:
    return use(static_cast<int32_t *>(nullptr));
  case DataType::U32:
    return use(static_cast<uint32_t *>(nullptr));
  case DataType::I64:
    return use(static_cast<int64_t *>(nullptr));
  case DataType::U64:
    return use(static_cast<uint64_t *>(nullptr));
  default:
    throw Error("no conversion between texts and {}", nameOf(type));
  }
}

static void castText(HostCall &call) {
  const Tensor &input = call.tensor(0);
  const auto to = DataType(call.integer("to", 0));
  Tensor result = Tensor::allocate(to, input.sizes);
  const auto count = size_t(input.count());
  if (to == DataType::String && input.type == DataType::String)
    *result.texts = *input.texts;
  else if (to == DataType::String)
    withNumber(input.type, [&]<typename T>(T *) {
      for (size_t i = 0; i < count; ++i)
        (*result.texts)[i] = toText(input.as<T>()[i]);
    });
  else
    withNumber(to, [&]<typename T>(T *) {
      for (size_t i = 0; i < count; ++i)
        result.as<T>()[i] = toNumber<T>(textsOf(input)[i]);
    });
  call.outputs[0] = std::move(result);
}

static void equal(HostCall &call) {
  const auto &a = textsOf(call.tensor(0)), &b = textsOf(call.tensor(1));
  std::vector<uint8_t> same;
  Tensor result = Tensor::allocate(DataType::Bool,
                                   forEachPair(call.tensor(0), call.tensor(1),
                                               [&](size_t i, size_t j, size_t) {
                                                 same.push_back(a[i] == b[j]);
                                               }));
  std::ranges::copy(same, result.as<uint8_t>());
  call.outputs[0] = std::move(result);
}

/// Element i of a tensor, or all of an attribute, as texts that are equal if
/// the values are.
static std::string textAt(const Tensor &tensor, size_t i) {
  if (tensor.type == DataType::String)
    return (*tensor.texts)[i];
  std::string text;
  withNumber(tensor.type,
             [&]<typename T>(T *) { text = toText(tensor.as<T>()[i]); });
  return text;
}

static std::vector<std::string> labelsOf(const HostCall &call,
                                         const std::string &side) {
  std::vector<std::string> labels;
  for (const char *suffix : {"_strings", "_int64s", "_floats", "_tensor"})
    if (const auto *found = call.attribute(side + suffix)) {
      labels.assign(found->texts().begin(), found->texts().end());
      for (int64_t value : found->integers())
        labels.push_back(toText(value));
      for (float value : found->floats())
        labels.push_back(toText(value));
    }
  if (labels.empty())
    throw Error("it has no {}", side);
  return labels;
}

static void encodeLabels(HostCall &call) {
  const Tensor &input = call.tensor(0);
  const auto keys = labelsOf(call, "keys"), labels = labelsOf(call, "values");
  if (keys.size() != labels.size())
    throw Error("{} keys and {} values", keys.size(), labels.size());
  std::map<std::string, std::string> table;
  for (size_t i = 0; i < keys.size(); ++i)
    table.emplace(keys[i], labels[i]);
  const DataType type = call.outputTypes[0];
  std::string otherwise = type == DataType::String ? "_Unused"
                          : type == DataType::F32  ? "-0"
                                                   : "-1";
  for (const char *name :
       {"default_string", "default_int64", "default_float", "default_tensor"})
    if (const auto *found = call.attribute(name)) {
      const bool isText = type == DataType::String;
      if (found->texts_size() && isText)
        otherwise = found->texts(0);
      else if (found->integers_size() && !isText && type != DataType::F32)
        otherwise = toText(found->integers(0));
      else if (found->floats_size() &&
               (type == DataType::F32 || type == DataType::F64))
        otherwise = toText(found->floats(0));
    }
  Tensor result = Tensor::allocate(type, input.sizes);
  for (size_t i = 0; i < size_t(input.count()); ++i) {
    auto found = table.find(textAt(input, i));
    const std::string &label = found == table.end() ? otherwise : found->second;
    if (type == DataType::String)
      (*result.texts)[i] = label;
    else
      withNumber(type, [&]<typename T>(T *) {
        result.as<T>()[i] = toNumber<T>(label);
      });
  }
  call.outputs[0] = std::move(result);
}

/// Counts of n-grams, each of items that stand 1 + skip apart.
static void weighNGrams(HostCall &call) {
  Tensor input = call.tensor(0);
  auto integers = [&](const char *name) {
    const auto *found = call.attribute(name);
    return found ? std::vector<int64_t>(found->integers().begin(),
                                        found->integers().end())
                 : std::vector<int64_t>();
  };
  std::vector<std::string> pool;
  if (const auto *texts = call.attribute("pool_strings"))
    pool.assign(texts->texts().begin(), texts->texts().end());
  for (int64_t item : integers("pool_int64s"))
    pool.push_back(toText(item));
  const auto starts = integers("ngram_counts"),
             places = integers("ngram_indexes");
  // By their items: the number among all n-grams.
  std::map<std::vector<std::string>, size_t> grams;
  for (size_t n = 1; n <= starts.size(); ++n) {
    const auto begin = size_t(starts[n - 1]);
    const size_t end = n < starts.size() ? size_t(starts[n]) : pool.size();
    if (begin > end || end > pool.size() || (end - begin) % n)
      throw Error("its pool of n-grams does not fit ngram_counts");
    for (size_t at = begin; at < end; at += n)
      grams.emplace(std::vector(pool.begin() + ptrdiff_t(at),
                                pool.begin() + ptrdiff_t(at + n)),
                    grams.size());
  }
  int64_t width = 0;
  for (int64_t place : places)
    width = std::max(width, place + 1);
  const auto *weights = call.attribute("weights");
  const std::string mode = call.text("mode", "TF");
  if (grams.size() > places.size() ||
      std::ranges::any_of(places, [](int64_t p) { return p < 0; }))
    throw Error("it has {} n-grams and {} places", grams.size(), places.size());
  const int64_t rows = input.sizes.size() == 2 ? input.sizes[0] : 1;
  const int64_t length = rows ? input.count() / rows : 0;
  std::vector<int64_t> sizes = {width};
  if (input.sizes.size() == 2)
    sizes.insert(sizes.begin(), rows);
  Tensor result = Tensor::allocate(DataType::F32, sizes);
  std::fill_n(result.as<float>(), result.count(), 0.0f);
  const int64_t least = call.integer("min_gram_length", 1),
                most = call.integer("max_gram_length", 1),
                skips = call.integer("max_skip_count", 0);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t n = least; n <= most; ++n)
      for (int64_t step = 1; step <= (n == 1 ? 1 : skips + 1); ++step)
        for (int64_t at = 0; at + (n - 1) * step < length; ++at) {
          std::vector<std::string> gram;
          for (int64_t i = 0; i < n; ++i)
            gram.push_back(textAt(input, size_t(row * length + at + i * step)));
          if (auto found = grams.find(gram); found != grams.end())
            result.as<float>()[row * width + places[found->second]] += 1;
        }
  if (mode != "TF")
    for (size_t gram = 0; gram < places.size(); ++gram) {
      if (!weights || gram >= size_t(weights->floats_size()))
        break;
      for (int64_t row = 0; row < rows; ++row) {
        float &value = result.as<float>()[row * width + places[gram]];
        if (value > 0)
          value = weights->floats(int(gram)) * (mode == "IDF" ? 1 : value);
      }
    }
  call.outputs[0] = std::move(result);
}

HostTable isthmus::rt::textOperators() {
  static constexpr std::pair<std::string_view, HostOperator> kTable[] = {
      {"StringConcat", concat},
      {"StringSplit", split},
      {"StringNormalizer", normalize},
      {"RegexFullMatch", fullMatch},
      {"Cast", castText},
      {"Equal", equal},
      {"LabelEncoder", encodeLabels},
      {"TfIdfVectorizer", weighNGrams},
  };
  return kTable;
}
