//===- ControlFlow.cpp - If, Loop, Scan -----------------------------------===//
#include "Operators.h"
#include "Pieces.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <limits>

using namespace isthmus::rt;

static void runIf(HostCall &call) {
  // Bodies stand in the order of their names: else_branch, then_branch.
  call.outputs = call.runBody(integerAt(call.tensor(0), 0) ? 1 : 0, {});
}

/// What an iteration gives one after another, as one tensor.
static Tensor stack(const std::vector<Tensor> &parts, size_t axis,
                    size_t output) {
  if (parts.empty())
    throw Error("it ran no iteration, so the sizes of result {} are unknown",
                output);
  std::vector<Tensor> expanded;
  for (const Tensor &part : parts)
    expanded.push_back(withAxis(part, axis));
  return concatenate(expanded, axis);
}

static void runLoop(HostCall &call) {
  const int64_t most = call.has(0) ? integerAt(call.tensor(0), 0)
                                   : std::numeric_limits<int64_t>::max();
  bool go = !call.has(1) || integerAt(call.tensor(1), 0);
  std::vector<Value> carried(call.inputs.begin() + 2, call.inputs.end());
  std::vector<std::vector<Tensor>> scanned(
      call.outputs.size() - std::min(call.outputs.size(), carried.size()));
  for (int64_t i = 0; i < most && go; ++i) {
    std::vector<Value> inputs = {scalar(i), scalar(go)};
    inputs.insert(inputs.end(), carried.begin(), carried.end());
    std::vector<Value> results = call.runBody(0, inputs);
    if (results.size() < 1 + carried.size() ||
        results.size() - 1 - carried.size() < scanned.size())
      throw Error("its body gives {} results, too few", results.size());
    go = integerAt(results[0].needTensor(), 0);
    for (size_t v = 0; v < carried.size(); ++v)
      carried[v] = std::move(results[1 + v]);
    for (size_t s = 0; s < scanned.size(); ++s)
      scanned[s].push_back(results[1 + carried.size() + s].needTensor());
  }
  for (size_t o = 0; o < call.outputs.size(); ++o)
    call.outputs[o] = o < carried.size()
                          ? carried[o]
                          : Value(stack(scanned[o - carried.size()], 0, o));
}

/// Element `index` of an attribute that gives one number for each input or
/// output.
static int64_t numberAt(const HostCall &call, std::string_view name,
                        size_t index) {
  const auto *attribute = call.attribute(name);
  return attribute && index < size_t(attribute->integers_size())
             ? attribute->integers(int(index))
             : 0;
}

static void runScan(HostCall &call) {
  const auto scans = size_t(call.integer("num_scan_inputs", 0));
  if (scans == 0 || scans > call.inputs.size())
    throw Error("num_scan_inputs is {}", scans);
  const size_t states = call.inputs.size() - scans;
  std::vector<Value> carried(call.inputs.begin(),
                             call.inputs.begin() + ptrdiff_t(states));
  int64_t length = -1;
  std::vector<size_t> axes;
  for (size_t s = 0; s < scans; ++s) {
    const Tensor &input = call.tensor(states + s);
    axes.push_back(
        normalAxis(numberAt(call, "scan_input_axes", s), input.sizes.size()));
    const int64_t own = input.sizes[axes.back()];
    if (length >= 0 && own != length)
      throw Error("scan inputs of lengths {} and {}", length, own);
    length = own;
  }
  const size_t outputs =
      call.outputs.size() - std::min(states, call.outputs.size());
  std::vector<std::vector<Tensor>> scanned(outputs);
  for (int64_t i = 0; i < length; ++i) {
    std::vector<Value> inputs = carried;
    for (size_t s = 0; s < scans; ++s) {
      const int64_t at =
          numberAt(call, "scan_input_directions", s) ? length - 1 - i : i;
      inputs.push_back(withoutAxis(
          slice(call.tensor(states + s), axes[s], at, at + 1), axes[s]));
    }
    std::vector<Value> results = call.runBody(0, inputs);
    if (results.size() < states + outputs)
      throw Error("its body gives {} results, too few", results.size());
    for (size_t v = 0; v < states; ++v)
      carried[v] = std::move(results[v]);
    for (size_t s = 0; s < outputs; ++s)
      scanned[s].push_back(results[states + s].needTensor());
  }
  for (size_t o = 0; o < call.outputs.size(); ++o) {
    if (o < states) {
      call.outputs[o] = carried[o];
      continue;
    }
    auto &parts = scanned[o - states];
    if (numberAt(call, "scan_output_directions", o - states))
      std::ranges::reverse(parts);
    const size_t rank = parts.empty() ? 1 : parts[0].sizes.size() + 1;
    call.outputs[o] = stack(
        parts, normalAxis(numberAt(call, "scan_output_axes", o - states), rank),
        o);
  }
}

static void runImpossible(HostCall &call) {
  throw Error("{}", call.text("message", "it cannot be run"));
}

HostTable isthmus::rt::controlFlowOperators() {
  static constexpr std::pair<std::string_view, HostOperator> kTable[] = {
      {"If", runIf},
      {"Loop", runLoop},
      {"Scan", runScan},
      {"isthmus.Impossible", runImpossible}};
  return kTable;
}
