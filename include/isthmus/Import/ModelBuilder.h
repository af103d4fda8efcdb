//===- ModelBuilder.h - writes a checkpoint as fm IR ------------*- C++ -*-===//
//
// What architecture descriptions (lib/Import/Architectures) are written with.
// Weights are named as in the checkpoint, relative to their layer; shapes come
// from what they are used for, and are checked against the checkpoint.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Dialect/FM/IR/FM.h"
#include "isthmus/Import/Checkpoint.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"

#include <functional>
#include <set>

namespace isthmus::import {

class BlockBuilder;

/// How a weight is made from its tensor.
struct WeightForm {
  int64_t unpermutedHeads = 0; ///< rows in llama.cpp's rotary order
  bool transposed = false;     ///< stored as inputs x outputs
  double added = 0;            ///< to every value
  int64_t firstRow = 0;        ///< of a tensor that several weights share, and
  int64_t storedRows = 0;      ///< how many it has; 0: the weight's own
};

class ModelBuilder {
public:
  ModelBuilder(mlir::MLIRContext &context, const Checkpoint &checkpoint);

  const Settings &settings() const { return checkpoint.settings; }
  const std::string &architecture() const { return checkpoint.architecture; }
  /// True if llama.cpp's converter has been at the weights.
  bool isGGUF() const { return checkpoint.isGGUF; }
  bool hasTensor(const std::string &name) const {
    return checkpoint.tensors.contains(name);
  }
  /// The values of a vector that says something about the model.
  std::vector<float> readTensor(const std::string &name, int64_t size);
  /// Accepts a tensor that nothing uses.
  void ignoreTensor(const std::string &name) { used.insert(name); }

  /// Continues the program with a call of the block `kind`, whose weights stand
  /// under `prefix` in the checkpoint. `body` describes the block and runs at
  /// its first call; calls of one kind differ in nothing but their weights.
  void call(const std::string &kind, const std::string &prefix,
            const std::function<mlir::Value(BlockBuilder &)> &body);

  /// Ends the program. Throws if the checkpoint has tensors that were not used.
  mlir::OwningOpRef<mlir::ModuleOp> finish(int64_t contextLength,
                                           int64_t vocabulary);

private:
  friend class BlockBuilder;
  struct Part {
    std::string name; ///< relative to the call's prefix, or "/absolute"
    std::vector<int64_t> shape;
    WeightForm form;
  };
  struct Block {
    mlir::Type result;
    std::vector<Part> parts;
    bool hasState = false;
  };
  struct Call {
    std::string kind, prefix;
    std::vector<std::string> params;
    int64_t state; ///< -1: none
  };

  const Tensor &tensorNamed(const std::string &name);
  std::string bind(const std::string &prefix, const Part &part);

  const Checkpoint &checkpoint;
  mlir::OpBuilder b;
  mlir::OwningOpRef<mlir::ModuleOp> module;
  mlir::Operation *lastParam = nullptr;
  std::set<std::string> used;
  std::map<std::string, Block> blocks;
  std::set<std::string> params; ///< symbols
  std::vector<Call> calls;
  int64_t states = 0;
};

/// Writes the body of one block. Activations are rows of f32. A name that
/// starts with '/' is the checkpoint's own, else the call's prefix goes before
/// it.
class BlockBuilder {
public:
  mlir::Value input; ///< rows; token ids in the first block

  mlir::Value embedding(const std::string &name, int64_t vocabulary,
                        int64_t features);
  mlir::Value positionEmbedding(const std::string &name, mlir::Value x,
                                int64_t positions);
  /// x * W^T, plus `NAME.bias` if the checkpoint has it. The weight is
  /// `NAME.weight`.
  mlir::Value linear(const std::string &name, mlir::Value x, int64_t outputs,
                     const WeightForm &form = {});
  /// Normalises each of `heads` by itself. The weight is `NAME.weight`.
  mlir::Value rmsNorm(const std::string &name, mlir::Value x, double epsilon,
                      const WeightForm &form = {}, int64_t heads = 1);
  mlir::Value layerNorm(const std::string &name, mlir::Value x, double epsilon);
  mlir::Value rotary(mlir::Value x, int64_t headDim, double theta,
                     llvm::ArrayRef<float> factors = {});
  struct Attention {
    int64_t heads, kvHeads;
    double scale;
    int64_t window = 0; ///< positions, its own included; 0: all
  };
  mlir::Value attention(mlir::Value q, mlir::Value k, mlir::Value v,
                        const Attention &attention);
  mlir::Value activate(fm::Function function, mlir::Value x);
  mlir::Value glu(fm::Function function, mlir::Value gate, mlir::Value up);
  mlir::Value add(mlir::Value x, mlir::Value y);
  mlir::Value scale(mlir::Value x, double factor);
  /// The rows whose logits are wanted.
  mlir::Value selectRows(mlir::Value x);

private:
  friend class ModelBuilder;
  BlockBuilder(ModelBuilder &model, ModelBuilder::Block &block,
               std::string prefix, mlir::Block &body)
      : model(model), block(block), prefix(std::move(prefix)), body(body) {}

  mlir::Location location(const std::string &name);
  mlir::Value weight(const std::string &name, std::vector<int64_t> shape,
                     const WeightForm &form = {});
  static int64_t features(mlir::Value x) {
    return fm::getFeatures(x.getType());
  }
  mlir::Type rowsOf(int64_t features);

  ModelBuilder &model;
  ModelBuilder::Block &block;
  std::string prefix;
  mlir::Block &body;
  mlir::Value meta, state;
};

} // namespace isthmus::import
