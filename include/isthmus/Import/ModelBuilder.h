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
#include <optional>
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
  std::vector<int64_t> fileShape = {}; ///< if the file has other dimensions
};

/// How a model takes images (bundle::ImageInput says it to the runtime).
struct ImageInput {
  int64_t size, patch;      ///< in pixels, of squares
  int64_t shortestEdge = 0; ///< resized to it before the crop; 0: no crop
  int64_t filter = 2;       ///< Pillow's number: 0, 1, 2 or 3
  double scale = 1.0 / 255;
  std::vector<double> mean{0, 0, 0}, deviation{1, 1, 1};
  int64_t patches() const { return size / patch * (size / patch); }
  int64_t features() const { return 3 * patch * patch; }
};

/// What a program takes and gives.
struct ProgramSpec {
  std::string name = "main";
  int64_t contextLength;      ///< positions of the longest sequence
  int64_t vocabulary = 0;     ///< of the ids that it takes; 0: takes images
  std::string task = {};      ///< "embed" or "classify"; empty: generates
  bool resultAtFirst = false; ///< the first row is the result, not the last
  std::optional<ImageInput> image = {};
  std::vector<std::string> labels = {};
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
  /// The values of a tensor that says something about the model.
  std::vector<float> readTensor(const std::string &name,
                                const std::vector<int64_t> &shape);
  /// Accepts a tensor that nothing uses.
  void ignoreTensor(const std::string &name) { used.insert(name); }

  /// Rows of values, `features` in each, enter the program that is begun.
  void takeValues(int64_t features) { inputFeatures = features; }

  /// Continues the program with a call of the block `kind`, whose weights stand
  /// under `prefix` in the checkpoint. `body` describes the block and runs at
  /// its first call; calls of one kind differ in nothing but their weights.
  void call(const std::string &kind, const std::string &prefix,
            const std::function<mlir::Value(BlockBuilder &)> &body);

  /// Ends a program; what is called next begins another.
  void endProgram(const ProgramSpec &spec);

  /// Says what products of the embeddings of two towers are multiplied by.
  void setSimilarityScale(double scale);

  /// Gives the module. Throws if the checkpoint has tensors that were not used.
  mlir::OwningOpRef<mlir::ModuleOp> finish();

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
    bool bidirectional = false; ///< then all calls share a state
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
  mlir::Type inputType() const;

  mlir::Operation *lastParam = nullptr;
  int64_t inputFeatures = 0; ///< 0: token ids
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
                                int64_t positions, const WeightForm &form = {});
  /// x * W^T, plus `NAME.bias` if the checkpoint has it. The weight is
  /// `NAME.weight`.
  mlir::Value linear(const std::string &name, mlir::Value x, int64_t outputs,
                     const WeightForm &form = {});
  /// x + the vector `name`.
  mlir::Value addVector(const std::string &name, mlir::Value x,
                        const WeightForm &form = {});
  /// The vector `name` in place of the row at position 0.
  mlir::Value classToken(const std::string &name, mlir::Value x,
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
    bool bidirectional = false;
  };
  mlir::Value attention(mlir::Value q, mlir::Value k, mlir::Value v,
                        const Attention &attention);
  mlir::Value activate(fm::Function function, mlir::Value x);
  mlir::Value glu(fm::Function function, mlir::Value gate, mlir::Value up);
  mlir::Value add(mlir::Value x, mlir::Value y);
  mlir::Value scale(mlir::Value x, double factor);
  /// The rows whose logits are wanted.
  mlir::Value selectRows(mlir::Value x);
  /// The means of the sequences that are wanted.
  mlir::Value meanRows(mlir::Value x);
  mlir::Value l2Norm(mlir::Value x);

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
