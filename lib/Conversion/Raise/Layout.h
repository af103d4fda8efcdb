//===- Layout.h - where the elements of a graph's tensors are ---*- C++ -*-===//
//
// A tensor of a graph that stands for rows of fm may have its features cut into
// heads, turned, repeated and joined. Its layout says which row and feature an
// element is; then none of that need be computed.
//
//===----------------------------------------------------------------------===//
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace isthmus::raise {

/// Lengths for which what hangs on sizes is worked out; one sequence.
struct Sample {
  int64_t sequence; ///< tokens of the step
  int64_t past;     ///< positions in the cache before it
  int64_t total() const { return sequence + past; }
  auto operator<=>(const Sample &) const = default;
};

/// A part of a dimension: it runs over the tokens of a step, over all positions
/// so far, or over features, `stride` from one to the next (0: repeats them).
struct Factor {
  enum Kind { Sequence, Total, Feature } kind;
  int64_t size = 0, stride = 0; ///< of features
  auto operator<=>(const Factor &) const = default;
  int64_t length(const Sample &sample) const {
    return kind == Sequence ? sample.sequence
           : kind == Total  ? sample.total()
                            : size;
  }
};

/// The outermost first; of length one without any.
using Dimension = std::vector<Factor>;
using Layout = std::vector<Dimension>;

inline Factor features(int64_t size, int64_t stride = 1) {
  return {Factor::Feature, size, stride};
}

std::vector<int64_t> sizesOf(const Layout &layout, const Sample &sample);

/// The layout with other sizes (-1: what is left); none if an element's row and
/// feature could not be told any more.
std::optional<Layout> reshape(const Layout &layout, std::vector<int64_t> sizes,
                              const Sample &sample);

/// The features of all dimensions but `except`, neighbours joined.
Dimension featuresBut(const Layout &layout, size_t except);

/// Neighbours that step as one become one.
Dimension joined(const Dimension &dimension);

/// The dimension that is `kind` and nothing else, if there is just one and the
/// kind is nowhere else.
std::optional<size_t> find(const Layout &layout, Factor::Kind kind);

} // namespace isthmus::raise
