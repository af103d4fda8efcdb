//===- Compile.h - from a model file to a bundle ----------------*- C++ -*-===//
#pragma once

#include "isthmus/Driver/Topology.h"
#include "isthmus/Import/Checkpoint.h"
#include "isthmus/Import/OnnxModel.h"

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

namespace isthmus {

struct CompileOptions {
  /// f32, f16, bf16, int8, int7 or int4; int8-row and so on: a scale a row, not
  /// a group; file: as the file has them
  std::string weights = "int4";
  /// How products of f32 and bf16 values are made: "vector", which gives the
  /// same bits on every target; "matrix", in a matrix unit (fm-split-rows,
  /// fm-tile-attention); "auto", the latter where all targets have one, with
  /// f32 weights for images of 128 rows and more alone.
  std::string products = "auto";
  std::string prune; ///< "", "2:4" or "unstructured"
  double sparsity = 0.5;
  /// f32, f16, bf16 or int8; "": bf16, or what f32 and f16 weights are
  std::string kv;
  int64_t kvBudget = 0;       ///< 0: all positions are kept
  uint64_t contextTokens = 0; ///< KV cache to plan for; 0: min(model's, 4096)
  unsigned threads = 0;       ///< for weights; 0: all processors
  /// By target, what differs from its own kernel schedule (parseSchedule). One
  /// choice is the same for a whole bundle: KernelSchedule::tileBytes is that
  /// of the preferred target.
  std::map<std::string, std::string> schedules;
  /// Of an ONNX file: tensors go in and out, even if it is a model of fm.
  bool asGraph = false;
  std::string dumpIR; ///< file for the module before kernels; "" none
  /// Called with a stage ("weights") and a fraction from 0 to 1.
  std::function<void(const std::string &stage, double fraction)> progress;
};

struct CompileReport {
  double seconds = 0, weightSeconds = 0;
  uint64_t bundleBytes = 0, peakResidentBytes = 0;
  /// Of an ONNX file that takes token ids and stays a graph: what keeps it from
  /// being a model of fm.
  std::string notRaised;
};

/// Compiles `checkpoint` for `topology` into `output`. Throws rt::Error.
CompileReport compile(const import::Checkpoint &checkpoint,
                      const Topology &topology, const CompileOptions &options,
                      const std::filesystem::path &output);

/// Compiles an ONNX model: a decoder as a checkpoint would be, anything else as
/// a graph of tensors, for which `weights`, `prune`, the KV cache's options and
/// schedules do not count. Operators of a graph without code of their own are
/// replaced by their definitions in `model`. Throws rt::Error, with a list of
/// all nodes that cannot be run.
CompileReport compile(import::OnnxModel &model, const Topology &topology,
                      const CompileOptions &options,
                      const std::filesystem::path &output);

} // namespace isthmus
