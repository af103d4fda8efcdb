//===- Function.h - functions of one number, told by their values -*- C++ -*-=//
//
// Exporters spell activations and norms in many ways. What a chain of operators
// computes from one number is tried at many numbers, and held against the
// functions that fm has.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Dialect/FM/IR/FM.h"

#include <functional>
#include <optional>

namespace isthmus::raise {

/// Empty: the number itself.
using Function = std::function<double(double)>;

inline double valueAt(const Function &function, double x) {
  return function ? function(x) : x;
}
/// x -> outer(inner(x))
Function after(const Function &inner, Function outer);

/// c, if the function is c x.
std::optional<double> factorOf(const Function &function);

/// If the function is c times an activation.
struct Activation {
  fm::Function function;
  double factor;
};
std::optional<Activation> activationOf(const Function &function);

/// Whether the function is the square of another.
bool isSquareOf(const Function &function, const Function &other);

/// e, if the function is 1 / sqrt(x + e).
std::optional<double> epsilonOf(const Function &function);

} // namespace isthmus::raise
