//===- Layout.cpp - where the elements of a graph's tensors are -----------===//
#include "Layout.h"

#include <algorithm>
#include <functional>
#include <numeric>

using namespace isthmus::raise;

static int64_t sizeOf(const Dimension &dimension, const Sample &sample) {
  return std::accumulate(dimension.begin(), dimension.end(), int64_t(1),
                         [&](int64_t size, const Factor &factor) {
                           return size * factor.length(sample);
                         });
}

std::vector<int64_t> isthmus::raise::sizesOf(const Layout &layout,
                                             const Sample &sample) {
  std::vector<int64_t> sizes;
  for (const Dimension &dimension : layout)
    sizes.push_back(sizeOf(dimension, sample));
  return sizes;
}

Dimension isthmus::raise::joined(const Dimension &dimension) {
  Dimension result;
  for (const Factor &factor : dimension) {
    if (factor.kind == Factor::Feature && factor.size == 1)
      continue;
    if (!result.empty() && factor.kind == Factor::Feature &&
        result.back().kind == Factor::Feature &&
        result.back().stride == factor.stride * factor.size) {
      result.back().size *= factor.size;
      result.back().stride = factor.stride;
      continue;
    }
    result.push_back(factor);
  }
  return result;
}

std::optional<Layout> isthmus::raise::reshape(const Layout &layout,
                                              std::vector<int64_t> sizes,
                                              const Sample &sample) {
  Dimension left;
  int64_t whole = 1;
  for (const Dimension &dimension : layout) {
    left.insert(left.end(), dimension.begin(), dimension.end());
    whole *= sizeOf(dimension, sample);
  }
  const int64_t known =
      std::accumulate(sizes.begin(), sizes.end(), int64_t(1),
                      [](int64_t a, int64_t b) { return b < 0 ? a : a * b; });
  for (int64_t &size : sizes)
    if (size < 0)
      size = known > 0 ? whole / known : 0;
  left = joined(left);
  Layout result(sizes.size());
  for (size_t d = sizes.size(); d-- > 0;) {
    int64_t wanted = sizes[d];
    while (wanted > 1) {
      if (left.empty())
        return std::nullopt;
      Factor &last = left.back();
      const int64_t length = last.length(sample);
      if (wanted % length == 0) {
        result[d].insert(result[d].begin(), last);
        left.pop_back();
        wanted /= length;
        continue;
      }
      if (last.kind != Factor::Feature || length % wanted != 0)
        return std::nullopt;
      result[d].insert(result[d].begin(), features(wanted, last.stride));
      last = features(length / wanted, last.stride * wanted);
      wanted = 1;
    }
    result[d] = joined(result[d]);
  }
  if (!left.empty())
    return std::nullopt;
  return result;
}

Dimension isthmus::raise::featuresBut(const Layout &layout, size_t except) {
  Dimension result;
  for (size_t d = 0; d < layout.size(); ++d)
    if (d != except)
      std::ranges::copy_if(
          layout[d], std::back_inserter(result),
          [](const Factor &factor) { return factor.kind == Factor::Feature; });
  return joined(result);
}

std::optional<size_t> isthmus::raise::find(const Layout &layout,
                                           Factor::Kind kind) {
  std::optional<size_t> found;
  for (size_t d = 0; d < layout.size(); ++d)
    for (const Factor &factor : layout[d])
      if (factor.kind == kind) {
        if (found || layout[d].size() != 1)
          return std::nullopt;
        found = d;
      }
  return found;
}
