//===- Function.cpp - functions of one number, told by their values -------===//
#include "Function.h"

#include <cmath>

using namespace isthmus;
using namespace isthmus::raise;

Function raise::after(const Function &inner, Function outer) {
  if (!inner)
    return outer;
  return [=](double x) { return outer(inner(x)); };
}

/// Whether two functions agree where activations differ from each other, as far
/// as constants in f32 let them.
static bool agree(const Function &a, const Function &b) {
  constexpr int kPoints = 241;
  constexpr double kRange = 12, kTolerance = 1e-5;
  for (int i = 0; i < kPoints; ++i) {
    const double x = -kRange + 2 * kRange * i / (kPoints - 1);
    const double p = valueAt(a, x), q = valueAt(b, x);
    if (!(std::fabs(p - q) <= kTolerance * std::max(1.0, std::fabs(q))))
      return false;
  }
  return true;
}

std::optional<double> raise::factorOf(const Function &function) {
  const double factor = valueAt(function, 1);
  if (agree(function, [=](double x) { return factor * x; }))
    return factor;
  return std::nullopt;
}

bool raise::isSquareOf(const Function &function, const Function &other) {
  return agree(function, [&](double x) {
    const double root = valueAt(other, x);
    return root * root;
  });
}

static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

std::optional<Activation> raise::activationOf(const Function &function) {
  const std::pair<fm::Function, Function> known[] = {
      {fm::Function::Silu, [](double x) { return x * sigmoid(x); }},
      {fm::Function::GeluErf,
       [](double x) { return x * (1 + std::erf(x / std::sqrt(2.0))) / 2; }},
      {fm::Function::GeluTanh,
       [](double x) {
         return x * sigmoid(std::sqrt(8 / M_PI) * (x + 0.044715 * x * x * x));
       }},
      {fm::Function::QuickGelu,
       [](double x) { return x * sigmoid(1.702 * x); }}};
  for (const auto &[name, activation] : known) {
    const double factor = valueAt(function, 8) / activation(8);
    if (std::isfinite(factor) && factor != 0 &&
        agree([&](double x) { return valueAt(function, x) / factor; },
              activation))
      return Activation{name, std::fabs(factor - 1) < 1e-6 ? 1 : factor};
  }
  return std::nullopt;
}

std::optional<double> raise::epsilonOf(const Function &function) {
  const double atZero = valueAt(function, 0);
  const double epsilon = std::isinf(atZero) ? 0 : 1 / (atZero * atZero);
  for (double x : {1e-6, 1e-3, 0.1, 1.0, 30.0, 1e4})
    if (const double expected = 1 / std::sqrt(x + epsilon);
        !(std::fabs(valueAt(function, x) - expected) <= 1e-5 * expected))
      return std::nullopt;
  return epsilon;
}
