//===- Raiser.h - reads a graph as a model of fm ----------------*- C++ -*-===//
//
// The graph is walked once. Each value that depends on tokens becomes a term:
// what it is in a transformer. An operator makes the term of its result from
// those of its operands; what has a counterpart in fm is written when it is
// needed. Terms that stand between (a mean of squares, scores, halves of a
// head) are never written.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "Function.h"
#include "Sides.h"
#include "Weights.h"

#include <memory>

namespace isthmus::raise {

/// x * W^T + b, written when it is needed: perhaps only some of its outputs
/// are.
struct Product {
  mlir::Value x;
  Weight weight;
  std::optional<Weight> bias;
  mlir::Location loc;
  mlir::Value made;
};

struct Term;
using TermRef = std::shared_ptr<Term>;

struct Term {
  enum class Kind {
    Unknown,       ///< `reason` says why
    Ids,           ///< token ids
    Rows,          ///< `function` of rows
    Mean,          ///< `function` of the mean of `meanOf`(`a`) over a head
    Normed,        ///< rows of `a` divided by the root of their mean square
    Scaled,        ///< the same times `weight`, where `a` is centered
    Half,          ///< `function` of the first or second half of heads
    Turned,        ///< heads with halves exchanged, the new first one negated
    TimesSide,     ///< `a` times what depends on positions, `sides[0]`
    Past,          ///< keys or values of earlier steps
    Cached,        ///< those and the new ones, `a`
    Scores,        ///< queries `a` times keys `b` times `number`, masked
    Probabilities, ///< softmax of scores
    NaNs,          ///< which of the probabilities `a` are none
  };
  Kind kind = Kind::Unknown;
  std::string reason = {};
  Layout layout = {};

  // Rows: one of both.
  mlir::Value value = {};
  std::shared_ptr<Product> product = {};
  Function function = {};
  bool centered = false;    ///< less their mean
  mlir::Value written = {}; ///< once `function` was

  TermRef a = {}, b = {}; ///< of rows, what they may be half of
  Function meanOf = {};
  double number = 0; ///< a factor, or an epsilon
  bool second = false;
  bool causal = false;
  std::optional<Weight> weight = {};
  std::vector<mlir::Value> sides = {};
  unsigned argument = 0; ///< of the program, the cache's
  std::vector<int64_t> pastSizes = {};

  const void *base() const {
    return value ? value.getAsOpaquePointer() : product.get();
  }
};

/// Rotary embedding as fm.rotary says it.
struct Rotation {
  double theta;
  std::vector<float> factors; ///< none if theta says all
};

class Raiser {
public:
  Raiser(graph::ProgramOp program, const GraphCompiler &compile,
         const RaiseOptions &options);
  /// Throws Unraisable.
  mlir::OwningOpRef<mlir::ModuleOp> run();

private:
  using Kind = Term::Kind;
  graph::ProgramOp program;
  const RaiseOptions options;
  mlir::OwningOpRef<mlir::ModuleOp> module;
  mlir::OpBuilder b;
  Sides sides;
  Weights weights;
  llvm::DenseMap<mlir::Value, TermRef> terms;

  // What is written: one block for the whole model, cut afterwards.
  mlir::Block flat;
  mlir::Value ids, rowsArgument;
  std::vector<std::string> flatWeights; ///< parameters of its last arguments
  std::map<std::string, mlir::Value> weightArguments;
  int64_t vocabulary = 0, context = 0;
  bool hasPast = false;
  std::map<unsigned, int> usedPasts;
  std::map<std::pair<std::vector<const void *>, Layout>, Rotation> rotations;
  mlir::Location loc; ///< of the node that is read

  [[noreturn]] static void give(std::string reason) {
    throw Unraisable{std::move(reason)};
  }
  std::vector<int64_t> sizesOf(mlir::Value value, const Sample &sample);
  TermRef termOf(mlir::Value value);
  static TermRef make(Kind kind, Layout layout = {});
  TermRef rowsTerm(mlir::Value value, Layout layout);
  static TermRef with(const Term &term, Layout layout);

  // Raiser.cpp: what is written.
  mlir::Value argumentFor(const Weight &weight);
  mlir::Value baseOf(Term &term);
  mlir::Value write(Term &term);
  mlir::Type rowsType(int64_t features);
  static int64_t featuresOf(const Term &term);
  /// Rows whose features stand in order in the last dimension.
  static bool isPlain(const Term &term);
  void readNode(graph::NodeOp node);
  TermRef readData(graph::NodeOp node, unsigned result);
  void finishProgram(mlir::Value logits);

  // Attributes and operands.
  static int64_t integer(graph::NodeOp node, llvm::StringRef name,
                         int64_t otherwise);
  static double real(graph::NodeOp node, llvm::StringRef name,
                     double otherwise);
  static bool has(graph::NodeOp node, unsigned input);
  static mlir::Value operand(graph::NodeOp node, unsigned input);
  std::vector<int64_t> integers(mlir::Value value);
  static size_t axisOf(int64_t axis, size_t rank);
  TermRef data(graph::NodeOp node, unsigned input = 0);

  // Pointwise.cpp
  static TermRef changed(const TermRef &term, const Function &function);
  TermRef readUnary(graph::NodeOp node, const Function &function);
  TermRef readBinary(graph::NodeOp node);
  TermRef withNumber(llvm::StringRef op, const TermRef &term, double number,
                     bool numberFirst);
  TermRef withSide(graph::NodeOp node, llvm::StringRef op, const TermRef &term,
                   mlir::Value side, bool sideFirst);
  TermRef combine(llvm::StringRef op, const TermRef &x, const TermRef &y);
  TermRef positionEmbedding(const TermRef &term, mlir::Value side);
  TermRef readMean(graph::NodeOp node);
  TermRef readNorm(graph::NodeOp node);
  TermRef normed(const TermRef &rows, const TermRef &mean, bool divided);
  TermRef scaleNormed(const TermRef &term, mlir::Value side);

  // Movement.cpp
  TermRef readReshape(graph::NodeOp node);
  TermRef readTranspose(graph::NodeOp node);
  TermRef readExpand(graph::NodeOp node);
  TermRef readSlice(graph::NodeOp node);
  TermRef readSplit(graph::NodeOp node, unsigned result);
  TermRef readGather(graph::NodeOp node);
  TermRef readConcat(graph::NodeOp node);
  TermRef partOf(const TermRef &term, size_t axis, int64_t first,
                 int64_t count);
  TermRef lastRow(const TermRef &term, size_t axis, bool keeps);

  // Attention.cpp, Rotary.cpp
  TermRef readMatMul(graph::NodeOp node);
  TermRef readGemm(graph::NodeOp node);
  TermRef multiply(const TermRef &x, const Weight &weight);
  TermRef readSoftmax(graph::NodeOp node);
  TermRef readWhere(graph::NodeOp node);
  TermRef readRotary(graph::NodeOp node);
  TermRef readAttention(graph::NodeOp node, unsigned result);
  TermRef heads(const TermRef &term, int64_t count);
  TermRef attend(const TermRef &scores, const TermRef &values);
  TermRef cached(const TermRef &past, const TermRef &added, size_t axis);
  TermRef readScatter(graph::NodeOp node);
  bool isPast(mlir::Value value, bool total);
  /// `positions` if cosines and sines are tables, else they are the step's.
  Rotation rotationOf(const Layout &layout, mlir::Value cosines,
                      mlir::Value sines, mlir::Value positions);
  TermRef rotate(const TermRef &x, mlir::Value cosines, mlir::Value sines,
                 mlir::Value positions);
  /// The window of positions that a row sees (0: all before it).
  int64_t windowOf(const std::vector<mlir::Value> &masks, bool causal);
};

/// Cuts a model that is written as one block into blocks with one activation
/// between them, equal ones once, and adds the program that calls them.
/// \param parameters of the last arguments of `flat`, after ids and rows.
void cutIntoBlocks(mlir::ModuleOp module, mlir::Block &flat, mlir::Value result,
                   llvm::ArrayRef<std::string> parameters,
                   int64_t contextLength, int64_t vocabulary);

} // namespace isthmus::raise
