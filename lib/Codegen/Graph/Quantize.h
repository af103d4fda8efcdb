//===- Quantize.h - rounding to integers of few bits ------------*- C++ -*-===//
#pragma once

#include "isthmus/Codegen/Graph/Operators.h"

namespace isthmus {

/// Rounds to nearest even, adds the zero point and clamps to what an integer
/// type holds.
Scalar quantized(NodeBuilder &n, Scalar value, Scalar zeroPoint, DataType type);

} // namespace isthmus
