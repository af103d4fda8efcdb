//===- NodeBuilder.h - a short hand for kernels of graphs -------*- C++ -*-===//
//
// Writes the shape function and the kernel of a node (GraphArgs in
// runtime/include/isthmus/runtime/KernelABI.h). Ranks and types are known,
// sizes may not be: they are read when the node runs.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Codegen/KernelBuilder.h"
#include "isthmus/runtime/DataType.h"
#include "isthmus/runtime/KernelABI.h"

#include <optional>

namespace isthmus {

using rt::DataType;

/// An input or output of a node.
struct TensorSpec {
  DataType type = DataType::Undefined; ///< Undefined: the node does not have it
  std::vector<int64_t> sizes;          ///< -1: known when the node runs
  /// Elements of a constant of integers, if there are few.
  std::optional<std::vector<int64_t>> integers;

  bool present() const { return type != DataType::Undefined; }
  size_t rank() const { return sizes.size(); }
};

struct NodeSpec {
  std::string op;
  mlir::DictionaryAttr attributes;
  std::vector<TensorSpec> inputs, outputs;
  /// Of several operators in one, which are computed one after another.
  struct Step;
  std::vector<Step> steps;

  bool has(size_t input) const {
    return input < inputs.size() && inputs[input].present();
  }
  // Attributes.
  int64_t integer(llvm::StringRef name, int64_t otherwise) const;
  double number(llvm::StringRef name, double otherwise) const;
  std::string text(llvm::StringRef name, llvm::StringRef otherwise) const;
};
struct NodeSpec::Step {
  NodeSpec spec;
  /// Its inputs: those of the node, then the results of steps before; -1: none.
  std::vector<int64_t> values;
};

class NodeBuilder;

/// A number while a kernel runs. Types narrower than 32 bits that are no
/// integers are f32 here, integers of less than 8 bits are 8 bits wide; a
/// tensor's own type counts when it is loaded and stored. Operators make code:
/// floats do not trap and are not reassociated, integers wrap around.
struct Scalar {
  NodeBuilder *builder = nullptr;
  mlir::Value value;
  DataType type = DataType::Undefined;
  explicit operator bool() const { return bool(value); }
};

Scalar operator+(Scalar a, Scalar b);
Scalar operator-(Scalar a, Scalar b);
Scalar operator*(Scalar a, Scalar b);
/// Integers: toward zero; anything by 0 is what the number itself was.
Scalar operator/(Scalar a, Scalar b);
/// The rest of `/`.
Scalar operator%(Scalar a, Scalar b);
Scalar operator-(Scalar a);
Scalar operator<(Scalar a, Scalar b);
Scalar operator<=(Scalar a, Scalar b);
Scalar operator>(Scalar a, Scalar b);
Scalar operator>=(Scalar a, Scalar b);
Scalar operator==(Scalar a, Scalar b);
Scalar operator!=(Scalar a, Scalar b);
/// Of integers or bools, bit by bit.
Scalar operator&(Scalar a, Scalar b);
Scalar operator|(Scalar a, Scalar b);
Scalar operator^(Scalar a, Scalar b);
Scalar operator!(Scalar a);

// With constants of the other operand's type.
Scalar operator+(Scalar a, double b);
Scalar operator-(Scalar a, double b);
Scalar operator*(Scalar a, double b);
Scalar operator/(Scalar a, double b);
Scalar operator%(Scalar a, double b);
Scalar operator-(double a, Scalar b);
Scalar operator/(double a, Scalar b);
Scalar operator<(Scalar a, double b);
Scalar operator<=(Scalar a, double b);
Scalar operator>(Scalar a, double b);
Scalar operator>=(Scalar a, double b);
Scalar operator==(Scalar a, double b);
Scalar operator!=(Scalar a, double b);

Scalar select(Scalar condition, Scalar a, Scalar b);
/// NaN if one of them is.
Scalar min(Scalar a, Scalar b);
Scalar max(Scalar a, Scalar b);
Scalar min(Scalar a, double b);
Scalar max(Scalar a, double b);
Scalar abs(Scalar a);
bool isFloat(DataType type);
bool isSigned(DataType type);

class NodeBuilder {
public:
  using Scalars = std::vector<Scalar>;

  /// Starts the function `name` in `module`. A tile of the kernel is `grain`
  /// elements of the first output.
  NodeBuilder(mlir::ModuleOp module, llvm::StringRef name, const NodeSpec &spec,
              int64_t grain, const TargetDescription &target,
              mlir::Location loc);
  void finish() { k.finish(); }

  KernelBuilder k;
  const NodeSpec &spec;
  const int64_t grain;

  // Attributes.
  bool hasAttribute(llvm::StringRef name) const;
  int64_t integer(llvm::StringRef name, int64_t otherwise) const {
    return spec.integer(name, otherwise);
  }
  double number(llvm::StringRef name, double otherwise) const {
    return spec.number(name, otherwise);
  }
  std::string text(llvm::StringRef name, llvm::StringRef otherwise) const {
    return spec.text(name, otherwise);
  }
  std::vector<int64_t> integers(llvm::StringRef name) const; ///< or none
  std::vector<double> numbers(llvm::StringRef name) const;   ///< or none

  // Operands are numbered: inputs from 0, outputs as `out` says. Of an input
  // that the node does not have only `has` may be asked.
  size_t inputs() const { return spec.inputs.size(); }
  static size_t out(size_t output = 0) { return kFirstOutput + output; }
  const TensorSpec &operand(size_t number) const;
  bool has(size_t number) const;
  size_t rank(size_t number) const { return operand(number).rank(); }
  /// `axis` counted from 0; throws rt::Error if there is no such one.
  size_t axis(int64_t axis, size_t rank) const;

  // Constants.
  Scalar constant(DataType type, double value);
  Scalar index(int64_t value) { return integerConstant(DataType::I64, value); }
  Scalar integerConstant(DataType type, int64_t value);
  Scalar truth(bool value) { return integerConstant(DataType::Bool, value); }
  /// Least and greatest number of a type (floats: infinities).
  Scalar lowest(DataType type);
  Scalar highest(DataType type);
  /// The number behind it, if it is a constant.
  static std::optional<int64_t> known(Scalar integer);

  // Sizes and elements. Sizes of outputs are known in kernels only.
  Scalar size(size_t number, size_t dimension);
  Scalars sizes(size_t number);
  Scalar count(size_t number); ///< elements
  /// Elements between two neighbours along a dimension.
  Scalar stride(size_t number, size_t dimension);
  Scalar linear(size_t number, llvm::ArrayRef<Scalar> coordinates);
  Scalar load(size_t number, Scalar linearIndex);
  Scalar load(size_t number, llvm::ArrayRef<Scalar> coordinates);
  /// Where the element stands in memory.
  mlir::Value address(size_t number, Scalar linearIndex);
  void store(size_t number, Scalar linearIndex, Scalar value);
  void store(size_t number, llvm::ArrayRef<Scalar> coordinates, Scalar value);
  /// Element `position` of an input that need not have so many: then the node
  /// fails, and the element is 0.
  Scalar elementAt(size_t number, size_t position);
  /// The same of an input of integers, as i64.
  Scalar integerAt(size_t number, size_t position);
  /// The only element of an input.
  Scalar scalarInput(size_t number) { return elementAt(number, 0); }
  /// The type in which numbers of a tensor of `type` are computed.
  static DataType computeType(DataType type);
  /// To another type, as Cast does: floats to integers toward zero.
  Scalar convert(Scalar value, DataType type);
  /// To the nearest value that `type` has; `saturate` counts for eight-bit
  /// floats. The result is the bits of it, as an integer, for types of less
  /// than 16 bits.
  Scalar encode(Scalar value, DataType type, bool saturate);
  /// `value`, a float, as `type` would keep it.
  Scalar rounded(Scalar value, DataType type) {
    value = convert(value, computeType(type));
    return computeType(type) == type
               ? value
               : decode(encode(value, type, true).value, type);
  }

  // Memory of the thread, in the kernel: elements of `type` from byte `offset`.
  Scalar loadScratch(DataType type, Scalar byteOffset);
  void storeScratch(Scalar byteOffset, Scalar value);

  // In shape functions.
  void setSize(size_t output, size_t dimension, Scalar size);
  void setTiles(Scalar tiles);
  void setScratch(Scalar bytes);
  /// Tiles of `grain` elements.
  void setTilesBy(Scalar elements);
  /// Anywhere: the node fails with `error` unless `condition` holds.
  void require(Scalar condition, rt::GraphError error);

  // Control flow.
  void loop(Scalar from, Scalar to, llvm::function_ref<void(Scalar)> body);
  Scalars
  loop(Scalar from, Scalar to, Scalars initial,
       llvm::function_ref<Scalars(Scalar, llvm::ArrayRef<Scalar>)> body);
  /// Sums `term` in the type of `initial`.
  Scalar sum(Scalar from, Scalar to, Scalar initial,
             llvm::function_ref<Scalar(Scalar)> term);
  void when(Scalar condition, llvm::function_ref<void()> body);
  /// One of two ways to compute the same numbers.
  Scalars either(Scalar condition, llvm::function_ref<Scalars()> then,
                 llvm::function_ref<Scalars()> otherwise);
  /// Nested loops over all coordinates of a box, carrying numbers along.
  Scalars box(llvm::ArrayRef<Scalar> extents, Scalars initial,
              llvm::function_ref<Scalars(llvm::ArrayRef<Scalar>,
                                         llvm::ArrayRef<Scalar>)>
                  body);

  // Kernels.
  /// The elements of this call's tiles: [first, last) of `elements`.
  std::pair<Scalar, Scalar> range(Scalar elements);
  Scalars coordinates(Scalar linearIndex, llvm::ArrayRef<Scalar> sizes);
  /// Calls `body` with the coordinates of each element of this call's tiles of
  /// an output, and its linear index; rows of the last dimension are inner
  /// loops.
  void forEach(size_t number,
               llvm::function_ref<void(llvm::ArrayRef<Scalar>, Scalar)> body);
  /// Output 0 at each coordinate.
  void gather(llvm::function_ref<Scalar(llvm::ArrayRef<Scalar>)> element);
  /// Output 0, whose sizes are those of all inputs broadcast together (NumPy's
  /// rules), by elements.
  void pointwise(llvm::function_ref<Scalar(llvm::ArrayRef<Scalar>)> element);

  /// Sizes of all inputs broadcast together; requires that they fit.
  Scalars broadcastSizes(llvm::ArrayRef<Scalars> operands);

  /// Calls of LLVM intrinsics and math functions.
  template <typename Op> Scalar math(Scalar a) {
    return {this, Op::create(k.b, k.loc, a.value), a.type};
  }

private:
  static constexpr size_t kFirstOutput = 1 << 16;

  /// Makes what depends on arguments alone at the start of the function, once.
  template <typename Make> mlir::Value once(mlir::Value &cache, Make make);
  mlir::Value operandField(size_t number, unsigned field);
  struct Cache;
  Cache &cacheOf(size_t number) { return caches[place(number)]; }
  /// Of an operand in GraphArgs.
  size_t place(size_t number) const {
    return number < kFirstOutput ? number : inputs() + number - kFirstOutput;
  }
  mlir::Type storageType(DataType type);
  Scalar decode(mlir::Value bits, DataType type);
  void nest(llvm::ArrayRef<Scalar> sizes,
            llvm::ArrayRef<std::vector<Scalar>> strides,
            llvm::function_ref<Scalar(llvm::ArrayRef<Scalar>)> element);

  struct Cache {
    mlir::Value data, sizesPointer, count;
    std::vector<mlir::Value> sizes, strides;
  };
  std::vector<Cache> caches;
  mlir::ArrayAttr outputs; ///< the alias scope of what the kernel writes
  mlir::Operation *prologueEnd;
};

} // namespace isthmus
