//===- Raiser.cpp - reads a graph as a model of fm ------------------------===//
#include "Raiser.h"

#include <cmath>
#include <fmt/format.h>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::raise;

/// Positions that a model is given if nothing says how many it has.
static constexpr int64_t kContextLength = 4096;

Raiser::Raiser(graph::ProgramOp program, const GraphCompiler &compile,
               const RaiseOptions &options)
    : program(program), options(options),
      module(ModuleOp::create(UnknownLoc::get(program.getContext()))),
      b(program.getContext()), sides(program, compile,
                                     [this](Value value, const Sample &sample) {
                                       return sizesOf(value, sample);
                                     }),
      weights(*module, sides), loc(b.getUnknownLoc()) {
  b.getContext()->loadDialect<fm::FMDialect>();
  (*module)->setAttr("fm.architecture", b.getStringAttr("onnx"));
}

std::vector<int64_t> Raiser::sizesOf(Value value, const Sample &sample) {
  TermRef term = termOf(value);
  if (term->kind == Kind::Unknown)
    give(term->reason);
  if (term->kind != Kind::Past)
    return raise::sizesOf(term->layout, sample);
  std::vector<int64_t> sizes = term->pastSizes;
  for (int64_t &size : sizes)
    if (size < 0)
      size = sample.past;
  return sizes;
}

TermRef Raiser::termOf(Value value) {
  auto found = terms.find(value);
  if (found == terms.end())
    give("a value is used in a way that no decoder has");
  return found->second;
}

TermRef Raiser::make(Kind kind, Layout layout) {
  auto term = std::make_shared<Term>();
  term->kind = kind;
  term->layout = std::move(layout);
  return term;
}

TermRef Raiser::rowsTerm(Value value, Layout layout) {
  TermRef term = make(Kind::Rows, std::move(layout));
  term->value = value;
  return term;
}

/// The same elsewhere; what was written of it stays with it.
TermRef Raiser::with(const Term &term, Layout layout) {
  auto result = std::make_shared<Term>(term);
  result->layout = std::move(layout);
  return result;
}

//===----------------------------------------------------------------------===//
// What is written
//===----------------------------------------------------------------------===//

Type Raiser::rowsType(int64_t features) {
  return RankedTensorType::get({ShapedType::kDynamic, features},
                               b.getF32Type());
}

Value Raiser::argumentFor(const Weight &weight) {
  const std::string symbol = weights.parameter(weight);
  Value &argument = weightArguments[symbol];
  if (!argument) {
    argument = flat.addArgument(weights.typeOf(weight), loc);
    flatWeights.push_back(symbol);
  }
  return argument;
}

int64_t Raiser::featuresOf(const Term &term) {
  if (term.value)
    return fm::getFeatures(term.value.getType());
  return term.product->weight.shape[0];
}

bool Raiser::isPlain(const Term &term) {
  if (term.kind != Kind::Rows || term.layout.empty())
    return false;
  const Dimension last = joined(term.layout.back());
  return last == Dimension{features(featuresOf(term))} &&
         featuresBut(term.layout, term.layout.size() - 1).empty();
}

Value Raiser::baseOf(Term &term) {
  if (term.value)
    return term.value;
  Product &product = *term.product;
  if (!product.made) {
    Value bias = product.bias ? argumentFor(*product.bias) : Value();
    product.made = fm::LinearOp::create(
        b, product.loc, rowsType(product.weight.shape[0]), product.x,
        argumentFor(product.weight), bias, nullptr);
  }
  return product.made;
}

Value Raiser::write(Term &term) {
  if (term.kind != Kind::Rows)
    give(term.kind == Kind::Unknown ? term.reason
                                    : "a value is used that only attention, a "
                                      "norm or rotary embedding has");
  if (term.centered)
    give("rows less their mean are used outside of a norm");
  if (term.written)
    return term.written;
  Value value = baseOf(term);
  if (!term.function)
    return term.written = value;
  auto scaled = [&](Value x, double factor) -> Value {
    if (factor == 1)
      return x;
    return fm::ScaleOp::create(b, loc, x.getType(), x,
                               b.getF64FloatAttr(factor));
  };
  if (auto factor = factorOf(term.function))
    return term.written = scaled(value, *factor);
  if (auto activation = activationOf(term.function))
    return term.written =
               scaled(fm::ActivateOp::create(b, loc, value.getType(),
                                             activation->function, value),
                      activation->factor);
  give("a function of single elements is none of the activations that there "
       "are");
}

//===----------------------------------------------------------------------===//
// Attributes and operands
//===----------------------------------------------------------------------===//

int64_t Raiser::integer(graph::NodeOp node, StringRef name, int64_t otherwise) {
  auto found = node.getOnnxAttributes().getAs<IntegerAttr>(name);
  return found ? found.getInt() : otherwise;
}

double Raiser::real(graph::NodeOp node, StringRef name, double otherwise) {
  auto found = node.getOnnxAttributes().getAs<FloatAttr>(name);
  return found ? found.getValueAsDouble() : otherwise;
}

bool Raiser::has(graph::NodeOp node, unsigned input) {
  return input < node.getInputs().size() &&
         !isa<NoneType>(node.getInputs()[input].getType());
}

Value Raiser::operand(graph::NodeOp node, unsigned input) {
  if (!has(node, input))
    give("an input is missing");
  return node.getInputs()[input];
}

std::vector<int64_t> Raiser::integers(Value value) {
  // "To the end" is written as the largest integer.
  constexpr double kMost = 0x1p62;
  std::vector<int64_t> result;
  for (double number : sides.evaluate(value, Sides::kSample).values)
    result.push_back(int64_t(std::clamp(number, -kMost, kMost)));
  return result;
}

size_t Raiser::axisOf(int64_t axis, size_t rank) {
  const int64_t counted = axis < 0 ? axis + int64_t(rank) : axis;
  if (counted < 0 || counted >= int64_t(rank))
    give("an axis is none of the tensor's");
  return size_t(counted);
}

TermRef Raiser::data(graph::NodeOp node, unsigned input) {
  Value value = operand(node, input);
  if (!sides.isData(value))
    give("an operand does not depend on tokens");
  TermRef term = termOf(value);
  if (term->kind == Kind::Unknown)
    give(term->reason);
  return term;
}

//===----------------------------------------------------------------------===//
// Nodes
//===----------------------------------------------------------------------===//

TermRef Raiser::readData(graph::NodeOp node, unsigned result) {
  for (Type type : llvm::concat<const Type>(
           SmallVector<Type>(node.getInputs().getTypes()),
           SmallVector<Type>(node.getOutputs().getTypes())))
    if (!isa<RankedTensorType, NoneType>(type))
      give("an operand is no tensor of known rank");
  // What stands in the way came before.
  for (Value input : node.getInputs())
    if (auto found = terms.find(input);
        found != terms.end() && found->second->kind == Kind::Unknown)
      give(found->second->reason);
  const StringRef op = node.getOp();
  if (result > 0 && op != "Split" && op != "Attention")
    give("a second result");
  if (op == "Identity" || op == "Cast" || op == "Dropout")
    return data(node);
  if (op == "Reshape" || op == "Unsqueeze" || op == "Squeeze" ||
      op == "Flatten")
    return readReshape(node);
  if (op == "Transpose")
    return readTranspose(node);
  if (op == "Expand")
    return readExpand(node);
  if (op == "Slice")
    return readSlice(node);
  if (op == "Split")
    return readSplit(node, result);
  if (op == "Gather")
    return readGather(node);
  if (op == "Concat")
    return readConcat(node);
  if (op == "TensorScatter")
    return readScatter(node);
  if (op == "MatMul")
    return readMatMul(node);
  if (op == "Gemm")
    return readGemm(node);
  if (op == "Softmax")
    return readSoftmax(node);
  if (op == "Where")
    return readWhere(node);
  if (op == "RotaryEmbedding")
    return readRotary(node);
  if (op == "Attention")
    return readAttention(node, result);
  if (op == "ReduceMean")
    return readMean(node);
  if (op == "RMSNormalization" || op == "LayerNormalization")
    return readNorm(node);
  if (op == "Add" || op == "Sub" || op == "Mul" || op == "Div" || op == "Pow")
    return readBinary(node);
  if (op == "IsNaN") {
    TermRef term = make(Kind::NaNs);
    term->a = data(node);
    return term;
  }
  static const std::map<std::string, Function> kUnary = {
      {"Neg", [](double x) { return -x; }},
      {"Sqrt", [](double x) { return std::sqrt(x); }},
      {"Reciprocal", [](double x) { return 1 / x; }},
      {"Sigmoid", [](double x) { return 1 / (1 + std::exp(-x)); }},
      {"Tanh", [](double x) { return std::tanh(x); }},
      {"Erf", [](double x) { return std::erf(x); }},
      {"Exp", [](double x) { return std::exp(x); }},
  };
  if (auto found = kUnary.find(op.str()); found != kUnary.end())
    return readUnary(node, found->second);
  if (op == "Swish") {
    const double alpha = real(node, "alpha", 1);
    return readUnary(node,
                     [=](double x) { return x / (1 + std::exp(-alpha * x)); });
  }
  if (op == "Gelu") {
    auto text = node.getOnnxAttributes().getAs<StringAttr>("approximate");
    if (text && text.getValue() == "tanh")
      return readUnary(node, [](double x) {
        return x / 2 *
               (1 +
                std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
      });
    return readUnary(node, [](double x) {
      return x / 2 * (1 + std::erf(x / std::sqrt(2.0)));
    });
  }
  give("no counterpart in fm");
}

/// What cannot be told is an error where it is used: it may not be.
void Raiser::readNode(graph::NodeOp node) {
  if (llvm::none_of(node.getOutputs(),
                    [&](Value value) { return sides.isData(value); }))
    return;
  loc = node.getLoc();
  for (auto [i, output] : llvm::enumerate(node.getOutputs())) {
    if (isa<NoneType>(output.getType()))
      continue;
    TermRef &term = terms[output];
    auto unknown = [&](const std::string &reason) {
      term = make(Kind::Unknown);
      // The first that could not be told is what stands in the way.
      const std::string name = node.getName().value_or("").str();
      term->reason = StringRef(reason).starts_with("node '")
                         ? reason
                         : fmt::format("node '{}' ({}): {}", name,
                                       node.getOp().str(), reason);
    };
    try {
      term = readData(node, unsigned(i));
    } catch (const Unraisable &error) {
      unknown(error.reason);
    } catch (const std::out_of_range &) {
      unknown("lists of axes and sizes do not fit each other");
    }
  }
}

OwningOpRef<ModuleOp> Raiser::run() {
  Block &body = program.getBody().front();
  auto textOf = [&](unsigned argument) {
    return cast<StringAttr>(program.getArgumentNames()[argument]).getValue();
  };
  ids = flat.addArgument(
      RankedTensorType::get({ShapedType::kDynamic}, b.getI32Type()), loc);
  rowsArgument = flat.addArgument(fm::RowsType::get(b.getContext()), loc);
  b.setInsertionPointToEnd(&flat);
  bool hasIds = false;
  for (BlockArgument argument : body.getArguments()) {
    if (!sides.isData(argument))
      continue;
    auto type = dyn_cast<RankedTensorType>(argument.getType());
    if (!type)
      give("an input is no tensor");
    if (isa<IntegerType>(type.getElementType()) && !hasIds &&
        (type.getRank() == 1 || type.getRank() == 2)) {
      Layout layout(size_t(type.getRank()));
      layout.back() = {{Factor::Sequence}};
      terms[argument] = make(Kind::Ids, layout);
      hasIds = true;
      continue;
    }
    if (type.getRank() < 3 || !isa<FloatType>(type.getElementType()))
      give(fmt::format("input '{}' is neither token ids nor a cache",
                       textOf(argument.getArgNumber()).str()));
    TermRef past = make(Kind::Past);
    past->argument = argument.getArgNumber();
    hasPast = true;
    for (auto [d, size] : llvm::enumerate(type.getShape()))
      past->pastSizes.push_back(size != ShapedType::kDynamic ? size
                                : d == 0                     ? 1
                                                             : -1);
    if (llvm::count(past->pastSizes, -1) > 1)
      give(fmt::format("input '{}' has sizes that the file leaves open, beside "
                       "positions",
                       textOf(argument.getArgNumber()).str()));
    terms[argument] = past;
  }
  if (!hasIds)
    give("no input holds token ids");
  context = options.contextLength ? options.contextLength : kContextLength;
  Value logits;
  for (Operation &op : body) {
    if (auto node = dyn_cast<graph::NodeOp>(op)) {
      readNode(node);
      continue;
    }
    auto end = dyn_cast<graph::ReturnOp>(op);
    if (!end)
      continue;
    for (auto [value, name] :
         llvm::zip(end.getValues(), program.getResultNames())) {
      const std::string text = cast<StringAttr>(name).getValue().str();
      if (!sides.isData(value))
        give(fmt::format("result '{}' does not depend on tokens", text));
      TermRef term = termOf(value);
      if (term->kind == Kind::Unknown)
        give(term->reason);
      if (term->kind == Kind::Cached)
        continue;
      if (logits || !isPlain(*term))
        give(fmt::format("result '{}' is neither logits nor a cache", text));
      logits = write(*term);
    }
  }
  if (!logits)
    give("no result holds logits");
  finishProgram(logits);
  return std::move(module);
}

/// Only rows whose logits are wanted go through what comes after the last
/// operator that looks at more than one row.
void Raiser::finishProgram(Value logits) {
  if (usedPasts.empty())
    give("there is no attention");
  // Where the graph takes the last row, it may do so later than it could.
  for (Operation &op : llvm::make_early_inc_range(flat))
    if (auto select = dyn_cast<fm::SelectRowsOp>(op)) {
      if (logits == select)
        logits = select.getX();
      select.replaceAllUsesWith(select.getX());
      select.erase();
    }
  OpOperand *use = nullptr;
  Value value = logits;
  while (Operation *op = value.getDefiningOp()) {
    if (!isa<fm::LinearOp, fm::RMSNormOp, fm::LayerNormOp, fm::ScaleOp,
             fm::ActivateOp, fm::AddVectorOp>(op) ||
        (value != logits && !value.hasOneUse()))
      break;
    use = &op->getOpOperand(0);
    value = use->get();
  }
  if (!use)
    give("logits are no product");
  b.setInsertionPoint(use->getOwner());
  use->set(
      fm::SelectRowsOp::create(b, loc, value.getType(), value, rowsArgument));
  cutIntoBlocks(*module, flat, logits, flatWeights, context, vocabulary);
}

RaisedModel isthmus::raiseToFM(graph::ProgramOp program,
                               const GraphCompiler &compile,
                               const RaiseOptions &options) {
  try {
    return {Raiser(program, compile, options).run(), {}};
  } catch (const Unraisable &error) {
    return {{}, error.reason};
  }
}
