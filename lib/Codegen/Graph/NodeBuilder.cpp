//===- NodeBuilder.cpp - a short hand for kernels of graphs ---------------===//
#include "isthmus/Codegen/Graph/NodeBuilder.h"

#include "isthmus/runtime/Error.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace isthmus;

//===----------------------------------------------------------------------===//
// The function and what it is given
//===----------------------------------------------------------------------===//

NodeBuilder::NodeBuilder(ModuleOp module, StringRef name, const NodeSpec &spec,
                         int64_t grain, const TargetDescription &target,
                         Location loc)
    : k(module, name, target, loc), spec(spec), grain(grain),
      caches(spec.inputs.size() + spec.outputs.size()) {
  auto prepare = [&](Cache &cache, const TensorSpec &operand) {
    cache.sizes.resize(operand.rank());
    cache.strides.resize(operand.rank());
  };
  for (size_t i = 0; i < spec.inputs.size(); ++i)
    prepare(cacheOf(i), spec.inputs[i]);
  for (size_t o = 0; o < spec.outputs.size(); ++o)
    prepare(cacheOf(out(o)), spec.outputs[o]);
  // What a node writes is nothing that it reads: loops need not look.
  auto domain = LLVM::AliasScopeDomainAttr::get(
      module.getContext(), StringAttr::get(module.getContext(), name));
  outputs =
      ArrayAttr::get(module.getContext(), {LLVM::AliasScopeAttr::get(domain)});
  // Marks the end of what is made once; cleaned up as dead code.
  prologueEnd = k.cst(0).getDefiningOp();
}

const TensorSpec &NodeBuilder::operand(size_t number) const {
  return number < kFirstOutput ? spec.inputs[number]
                               : spec.outputs[number - kFirstOutput];
}

bool NodeBuilder::has(size_t number) const {
  const size_t count =
      number < kFirstOutput ? inputs() : kFirstOutput + spec.outputs.size();
  return number < count && operand(number).present();
}

size_t NodeBuilder::axis(int64_t axis, size_t rank) const {
  const int64_t wrapped = axis < 0 ? axis + int64_t(rank) : axis;
  if (wrapped < 0 || wrapped >= int64_t(rank))
    throw rt::Error("{}: axis {} of {} dimensions", spec.op, axis, rank);
  return size_t(wrapped);
}

template <typename Make> Value NodeBuilder::once(Value &cache, Make make) {
  if (cache)
    return cache;
  OpBuilder::InsertionGuard guard(k.b);
  k.b.setInsertionPoint(prologueEnd);
  return cache = make();
}

Value NodeBuilder::operandField(size_t number, unsigned field) {
  Type pointer = LLVM::LLVMPointerType::get(k.b.getContext());
  Value list = k.load(pointer, k.arguments, offsetof(rt::GraphArgs, operands));
  return k.load(pointer, list,
                int64_t(sizeof(rt::GraphOperand) * place(number)) + 8 * field);
}

Scalar NodeBuilder::size(size_t number, size_t dimension) {
  const int64_t fixed = operand(number).sizes[dimension];
  if (fixed >= 0)
    return index(fixed);
  Cache &cache = cacheOf(number);
  auto make = [&] {
    Value pointer =
        once(cache.sizesPointer, [&] { return operandField(number, 1); });
    return k.load(k.i64(), pointer, int64_t(8 * dimension));
  };
  return {this, once(cache.sizes[dimension], make), DataType::I64};
}

NodeBuilder::Scalars NodeBuilder::sizes(size_t number) {
  Scalars result;
  for (size_t d = 0; d < rank(number); ++d)
    result.push_back(size(number, d));
  return result;
}

Scalar NodeBuilder::count(size_t number) {
  Scalar result = index(1);
  for (Scalar size : sizes(number))
    result = result * size;
  return result;
}

Scalar NodeBuilder::stride(size_t number, size_t dimension) {
  auto make = [&] {
    Scalar result = index(1);
    for (size_t d = dimension + 1; d < rank(number); ++d)
      result = result * size(number, d);
    return result.value;
  };
  return {this, once(cacheOf(number).strides[dimension], make), DataType::I64};
}

Scalar NodeBuilder::linear(size_t number, ArrayRef<Scalar> coordinates) {
  Scalar result = index(0);
  for (size_t d = 0; d < coordinates.size(); ++d)
    result = result + coordinates[d] * stride(number, d);
  return result;
}

//===----------------------------------------------------------------------===//
// Attributes and constants
//===----------------------------------------------------------------------===//

bool NodeBuilder::hasAttribute(StringRef name) const {
  return bool(spec.attributes.get(name));
}

int64_t NodeSpec::integer(StringRef name, int64_t otherwise) const {
  auto found = attributes.getAs<IntegerAttr>(name);
  return found ? found.getInt() : otherwise;
}

double NodeSpec::number(StringRef name, double otherwise) const {
  auto found = attributes.getAs<FloatAttr>(name);
  return found ? found.getValueAsDouble() : otherwise;
}

std::string NodeSpec::text(StringRef name, StringRef otherwise) const {
  auto found = attributes.getAs<StringAttr>(name);
  return found ? found.getValue().str() : otherwise.str();
}

std::vector<int64_t> NodeBuilder::integers(StringRef name) const {
  auto found = spec.attributes.getAs<DenseI64ArrayAttr>(name);
  return found ? found.asArrayRef().vec() : std::vector<int64_t>();
}

std::vector<double> NodeBuilder::numbers(StringRef name) const {
  std::vector<double> result;
  if (auto found = spec.attributes.getAs<DenseF32ArrayAttr>(name))
    result.assign(found.asArrayRef().begin(), found.asArrayRef().end());
  return result;
}

bool isthmus::isFloat(DataType type) {
  switch (type) {
  case DataType::F32:
  case DataType::F16:
  case DataType::BF16:
  case DataType::F64:
  case DataType::F8E4M3FN:
  case DataType::F8E4M3FNUZ:
  case DataType::F8E5M2:
  case DataType::F8E5M2FNUZ:
  case DataType::F8E8M0:
  case DataType::F4E2M1:
    return true;
  default:
    return false;
  }
}

bool isthmus::isSigned(DataType type) {
  switch (type) {
  case DataType::Bool:
  case DataType::U2:
  case DataType::U4:
  case DataType::U8:
  case DataType::U16:
  case DataType::U32:
  case DataType::U64:
    return false;
  default:
    return true;
  }
}

DataType NodeBuilder::computeType(DataType type) {
  switch (type) {
  case DataType::U2:
  case DataType::U4:
    return DataType::U8;
  case DataType::I2:
  case DataType::I4:
    return DataType::I8;
  default:
    return isFloat(type) && type != DataType::F64 ? DataType::F32 : type;
  }
}

/// The type of a value while it is computed, in MLIR.
static Type valueType(Builder &b, DataType type) {
  type = NodeBuilder::computeType(type);
  if (type == DataType::F64)
    return b.getF64Type();
  if (type == DataType::F32)
    return b.getF32Type();
  if (type == DataType::Bool)
    return b.getI1Type();
  return b.getIntegerType(unsigned(rt::bytesOf(type)) * 8);
}

Scalar NodeBuilder::constant(DataType type, double value) {
  if (!isFloat(type))
    return integerConstant(type, int64_t(value));
  type = computeType(type);
  return {this, k.fcst(valueType(k.b, type), value), type};
}

Scalar NodeBuilder::integerConstant(DataType type, int64_t value) {
  if (isFloat(type))
    return constant(type, double(value));
  type = computeType(type);
  Type mlirType = valueType(k.b, type);
  if (type == DataType::Bool)
    value = value != 0;
  APInt bits =
      APInt(64, uint64_t(value)).sextOrTrunc(mlirType.getIntOrFloatBitWidth());
  return {
      this,
      arith::ConstantOp::create(k.b, k.loc, k.b.getIntegerAttr(mlirType, bits)),
      type};
}

Scalar NodeBuilder::lowest(DataType type) {
  if (isFloat(type))
    return constant(type, -std::numeric_limits<double>::infinity());
  if (!isSigned(type))
    return integerConstant(type, 0);
  return integerConstant(type, int64_t(1)
                                   << (rt::bytesOf(computeType(type)) * 8 - 1));
}

Scalar NodeBuilder::highest(DataType type) {
  if (isFloat(type))
    return constant(type, std::numeric_limits<double>::infinity());
  if (!isSigned(type))
    return integerConstant(type, -1);
  const unsigned bits = unsigned(rt::bytesOf(computeType(type))) * 8;
  return integerConstant(type, int64_t(~uint64_t(0) >> (65 - bits)));
}

std::optional<int64_t> NodeBuilder::known(Scalar integer) {
  APInt value;
  if (matchPattern(integer.value, m_ConstantInt(&value)))
    return value.getSExtValue();
  return std::nullopt;
}

//===----------------------------------------------------------------------===//
// Elements
//===----------------------------------------------------------------------===//

Value NodeBuilder::address(size_t number, Scalar linearIndex) {
  Value base =
      once(cacheOf(number).data, [&] { return operandField(number, 0); });
  return k.ptr(base, k.mul(linearIndex.value,
                           int64_t(rt::bytesOf(operand(number).type))));
}

Scalar NodeBuilder::load(size_t number, Scalar linearIndex) {
  const DataType type = operand(number).type;
  Value stored = k.load(storageType(type), address(number, linearIndex));
  if (number < kFirstOutput)
    stored.getDefiningOp<LLVM::LoadOp>().setNoaliasScopesAttr(outputs);
  return decode(stored, type);
}

Scalar NodeBuilder::load(size_t number, ArrayRef<Scalar> coordinates) {
  return load(number, linear(number, coordinates));
}

void NodeBuilder::store(size_t number, Scalar linearIndex, Scalar value) {
  const DataType type = operand(number).type;
  Scalar stored = value;
  // Small floats may come as their bits already (encode).
  const bool bits =
      isFloat(type) && rt::bytesOf(type) == 1 && value.type == DataType::U8;
  if (!bits)
    stored = encode(convert(value, computeType(type)), type, true);
  k.store(stored.value, address(number, linearIndex))
      .setAliasScopesAttr(outputs);
}

void NodeBuilder::store(size_t number, ArrayRef<Scalar> coordinates,
                        Scalar value) {
  store(number, linear(number, coordinates), value);
}

Scalar NodeBuilder::elementAt(size_t number, size_t position) {
  Scalar at = index(int64_t(position));
  Scalar inside = at < count(number);
  if (known(inside) && *known(inside))
    return load(number, at);
  require(inside, rt::kGraphSizes);
  return either(
      inside, [&]() -> Scalars { return {load(number, at)}; },
      [&]() -> Scalars {
        return {constant(computeType(operand(number).type), 0)};
      })[0];
}

Scalar NodeBuilder::integerAt(size_t number, size_t position) {
  const TensorSpec &input = operand(number);
  if (input.integers && position < input.integers->size())
    return index((*input.integers)[position]);
  return convert(elementAt(number, position), DataType::I64);
}

Scalar NodeBuilder::loadScratch(DataType type, Scalar byteOffset) {
  type = computeType(type);
  return {this,
          k.load(valueType(k.b, type), k.ptr(k.scratch, byteOffset.value)),
          type};
}

void NodeBuilder::storeScratch(Scalar byteOffset, Scalar value) {
  k.store(value.value, k.ptr(k.scratch, byteOffset.value));
}

//===----------------------------------------------------------------------===//
// Shape functions
//===----------------------------------------------------------------------===//

void NodeBuilder::setSize(size_t output, size_t dimension, Scalar size) {
  if (!has(out(output)))
    return;
  Cache &cache = cacheOf(out(output));
  Value pointer =
      once(cache.sizesPointer, [&] { return operandField(out(output), 1); });
  // Negative sizes would be taken for dynamic ones, or worse.
  require(size >= 0, rt::kGraphSizes);
  k.store(size.value, pointer, int64_t(8 * dimension));
}

void NodeBuilder::setTiles(Scalar tiles) {
  k.store(tiles.value, k.arguments, offsetof(rt::GraphArgs, tiles));
}

void NodeBuilder::setScratch(Scalar bytes) {
  k.store(bytes.value, k.arguments, offsetof(rt::GraphArgs, scratchBytes));
}

void NodeBuilder::setTilesBy(Scalar elements) {
  setTiles((elements + double(grain - 1)) / double(grain));
}

void NodeBuilder::require(Scalar condition, rt::GraphError error) {
  if (known(condition))
    if (*known(condition))
      return;
  when(!condition, [&] {
    k.store(k.cst(error), k.arguments, offsetof(rt::GraphArgs, error));
  });
}

NodeBuilder::Scalars NodeBuilder::broadcastSizes(ArrayRef<Scalars> operands) {
  size_t rank = 0;
  for (const Scalars &sizes : operands)
    rank = std::max(rank, sizes.size());
  Scalars result(rank, index(1));
  for (const Scalars &sizes : operands)
    for (size_t d = 0; d < sizes.size(); ++d) {
      Scalar &size = result[d + rank - sizes.size()];
      Scalar own = sizes[d];
      require((own == size) | (own == 1) | (size == 1), rt::kGraphSizes);
      size = select(own == 1, size, own);
    }
  return result;
}

//===----------------------------------------------------------------------===//
// Control flow
//===----------------------------------------------------------------------===//

void NodeBuilder::loop(Scalar from, Scalar to,
                       function_ref<void(Scalar)> body) {
  k.loop(from.value, to.value, 1,
         [&](Value i) { body({this, i, DataType::I64}); });
}

NodeBuilder::Scalars
NodeBuilder::loop(Scalar from, Scalar to, Scalars initial,
                  function_ref<Scalars(Scalar, ArrayRef<Scalar>)> body) {
  KernelBuilder::Values values;
  for (Scalar scalar : initial)
    values.push_back(scalar.value);
  auto wrap = [&](ValueRange range) {
    Scalars result;
    for (size_t i = 0; i < range.size(); ++i)
      result.push_back({this, range[i], initial[i].type});
    return result;
  };
  auto results =
      k.loop(from.value, to.value, 1, values, [&](Value i, ValueRange state) {
        KernelBuilder::Values next;
        for (Scalar scalar : body({this, i, DataType::I64}, wrap(state)))
          next.push_back(scalar.value);
        return next;
      });
  return wrap(results);
}

Scalar NodeBuilder::sum(Scalar from, Scalar to, Scalar initial,
                        function_ref<Scalar(Scalar)> term) {
  return loop(from, to, {initial}, [&](Scalar i, ArrayRef<Scalar> state) {
    return Scalars{state[0] + convert(term(i), initial.type)};
  })[0];
}

void NodeBuilder::when(Scalar condition, function_ref<void()> body) {
  k.ifElse(condition.value, [&] { body(); });
}

NodeBuilder::Scalars NodeBuilder::either(Scalar condition,
                                         function_ref<Scalars()> then,
                                         function_ref<Scalars()> otherwise) {
  std::vector<DataType> types;
  auto region = [&](function_ref<Scalars()> body) {
    return [&, body](OpBuilder &inner, Location) {
      OpBuilder saved = k.b;
      k.b = inner;
      KernelBuilder::Values values;
      types.clear();
      for (Scalar scalar : body()) {
        values.push_back(scalar.value);
        types.push_back(scalar.type);
      }
      scf::YieldOp::create(k.b, k.loc, values);
      k.b = saved;
    };
  };
  auto op = scf::IfOp::create(k.b, k.loc, condition.value, region(then),
                              region(otherwise));
  Scalars results;
  for (size_t i = 0; i < types.size(); ++i)
    results.push_back({this, op.getResult(unsigned(i)), types[i]});
  return results;
}

NodeBuilder::Scalars NodeBuilder::box(
    ArrayRef<Scalar> extents, Scalars initial,
    function_ref<Scalars(ArrayRef<Scalar>, ArrayRef<Scalar>)> body) {
  Scalars coordinates;
  std::function<Scalars(ArrayRef<Scalar>)> level =
      [&](ArrayRef<Scalar> state) -> Scalars {
    const size_t d = coordinates.size();
    if (d == extents.size())
      return body(coordinates, state);
    return loop(index(0), extents[d], state.vec(),
                [&](Scalar i, ArrayRef<Scalar> inner) {
                  coordinates.push_back(i);
                  Scalars next = level(inner);
                  coordinates.pop_back();
                  return next;
                });
  };
  return level(initial);
}

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

std::pair<Scalar, Scalar> NodeBuilder::range(Scalar elements) {
  Scalar first{this, k.mul(k.begin, grain), DataType::I64};
  Scalar last{this, k.mul(k.end, grain), DataType::I64};
  return {min(first, elements), min(last, elements)};
}

NodeBuilder::Scalars NodeBuilder::coordinates(Scalar linearIndex,
                                              ArrayRef<Scalar> sizes) {
  Scalars result(sizes.size(), linearIndex);
  Scalar rest = linearIndex;
  for (size_t d = sizes.size(); d-- > 0;) {
    if (d == 0) {
      result[0] = rest;
      break;
    }
    // Empty tensors have no element to ask for.
    Scalar size = max(sizes[d], 1);
    Scalar next = rest / size;
    result[d] = rest - next * size;
    rest = next;
  }
  return result;
}

void NodeBuilder::forEach(size_t number,
                          function_ref<void(ArrayRef<Scalar>, Scalar)> body) {
  Scalars all = sizes(number);
  auto [first, last] = range(count(number));
  if (all.empty()) {
    loop(first, last, [&](Scalar i) { body({}, i); });
    return;
  }
  Scalar length = max(all.back(), 1);
  ArrayRef<Scalar> outer = ArrayRef(all).drop_back();
  loop(first / length, (last + length - 1) / length, [&](Scalar row) {
    Scalars at = coordinates(row, outer);
    Scalar base = row * length;
    at.push_back(base);
    loop(max(first - base, 0), min(last - base, length), [&](Scalar j) {
      at.back() = j;
      body(at, base + j);
    });
  });
}

void NodeBuilder::gather(function_ref<Scalar(ArrayRef<Scalar>)> element) {
  forEach(out(),
          [&](ArrayRef<Scalar> at, Scalar i) { store(out(), i, element(at)); });
}

/// Loops over output 0 as a tensor of `sizes` (of as many elements), where
/// input i has the given strides.
void NodeBuilder::nest(ArrayRef<Scalar> sizes,
                       ArrayRef<std::vector<Scalar>> strides,
                       function_ref<Scalar(ArrayRef<Scalar>)> element) {
  Scalar total = index(1);
  for (Scalar size : sizes)
    total = total * size;
  auto [first, last] = range(total);
  Scalar length = max(sizes.back(), 1);
  loop(first / length, (last + length - 1) / length, [&](Scalar row) {
    Scalars at = coordinates(row, sizes.drop_back());
    Scalars bases;
    for (const auto &own : strides) {
      Scalar base = index(0);
      for (size_t d = 0; d < at.size(); ++d)
        base = base + at[d] * own[d];
      bases.push_back(base);
    }
    Scalar start = row * length;
    loop(max(first - start, 0), min(last - start, length), [&](Scalar j) {
      Scalars values;
      for (size_t i = 0; i < strides.size(); ++i)
        values.push_back(has(i) ? load(i, bases[i] + j * strides[i].back())
                                : Scalar());
      store(out(), start + j, element(values));
    });
  });
}

void NodeBuilder::pointwise(function_ref<Scalar(ArrayRef<Scalar>)> element) {
  const size_t rank = this->rank(out());
  Scalars all = sizes(out());
  // What is known of each input's dimension: it goes along, or is broadcast.
  enum class Step { Along, Broadcast, Unknown };
  std::vector<std::vector<Step>> steps(inputs());
  bool flat = true, unknown = false;
  for (size_t i = 0; i < inputs(); ++i) {
    const TensorSpec &input = operand(i);
    bool single = true; // so is an input that is missing: it is never loaded
    for (int64_t size : input.sizes)
      single &= size == 1;
    bool along = input.rank() == rank;
    for (size_t d = 0; d < rank; ++d) {
      Step step = Step::Broadcast;
      if (d + input.rank() >= rank) {
        const int64_t own = input.sizes[d + input.rank() - rank],
                      result = operand(out()).sizes[d];
        step = own < 0                   ? Step::Unknown
               : own == 1 && result != 1 ? Step::Broadcast
                                         : Step::Along;
        // One input alone gives the sizes.
        if (inputs() == 1)
          step = Step::Along;
      }
      steps[i].push_back(step);
      along &= step == Step::Along;
    }
    flat &= !has(i) || along || single;
    unknown |= llvm::is_contained(steps[i], Step::Unknown);
    if (single)
      steps[i].assign(rank, Step::Broadcast);
  }
  auto emitFlat = [&] {
    std::vector<std::vector<Scalar>> strides;
    for (size_t i = 0; i < inputs(); ++i) {
      bool broadcast = rank > 0;
      for (Step step : steps[i])
        broadcast &= step == Step::Broadcast;
      strides.push_back({index(broadcast ? 0 : 1)});
    }
    nest({count(out())}, strides, element);
  };
  if (flat || rank == 0)
    return emitFlat();
  auto emitGeneral = [&] {
    // Dimensions in which every input steps alike are one.
    std::vector<std::vector<Scalar>> strides(inputs());
    Scalars merged;
    for (size_t d = 0; d < rank; ++d) {
      bool join = d > 0 && !unknown;
      for (size_t i = 0; join && i < inputs(); ++i)
        join = steps[i][d] == steps[i][d - 1];
      if (join)
        merged.back() = merged.back() * all[d];
      else
        merged.push_back(all[d]);
      for (size_t i = 0; i < inputs(); ++i) {
        Scalar step = index(0);
        if (steps[i][d] != Step::Broadcast && has(i)) {
          const size_t own = d + this->rank(i) - rank;
          step = stride(i, own);
          if (steps[i][d] == Step::Unknown)
            step = select(size(i, own) == 1, index(0), step);
        }
        if (join)
          strides[i].back() = step;
        else
          strides[i].push_back(step);
      }
    }
    nest(merged, strides, element);
  };
  if (!unknown)
    return emitGeneral();
  Scalar same = truth(true);
  for (size_t i = 0; i < inputs(); ++i) {
    if (!has(i) || llvm::all_of(steps[i], [](Step step) {
          return step == Step::Broadcast;
        }))
      continue;
    same = same & truth(this->rank(i) == rank);
    for (size_t d = 0; d < std::min(rank, this->rank(i)); ++d)
      same =
          same & (size(i, d + this->rank(i) - std::min(rank, this->rank(i))) ==
                  all[d + rank - std::min(rank, this->rank(i))]);
  }
  if (known(same) == 0)
    return emitGeneral();
  k.ifElse(same.value, emitFlat, emitGeneral);
}
