//===- Interpreter.cpp - reference semantics of fm ------------------------===//
#include "isthmus/Dialect/FM/Interpreter/Interpreter.h"

#include "isthmus/Weights/RowOps.h"
#include "isthmus/runtime/KernelABI.h"

#include "llvm/ADT/TypeSwitch.h"

#include <cmath>
#include <map>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::fm;

namespace {
class Interpreter {
public:
  Interpreter(ProgramOp program, const SequenceInput &input,
              weights::Sources &sources)
      : program(program), input(input), sources(sources),
        symbols(program->getParentOfType<ModuleOp>()) {}

  FailureOr<Matrix> run() {
    std::map<void *, Matrix> values;
    Value first = program.getBody().getArgument(0);
    if (!isa<IntegerType>(cast<ShapedType>(first.getType()).getElementType())) {
      if (input.rows.columns != fm::getFeatures(first.getType()))
        return program.emitError("takes rows of ")
               << fm::getFeatures(first.getType()) << " features, got "
               << input.rows.columns;
      values[first.getAsOpaquePointer()] = input.rows;
    }
    for (Operation &op : program.getBody().front()) {
      if (auto call = dyn_cast<CallOp>(op)) {
        Matrix input;
        if (auto it = values.find(call.getInputs()[0].getAsOpaquePointer());
            it != values.end())
          input = it->second;
        FailureOr<Matrix> result = runBlock(call, std::move(input));
        if (failed(result))
          return failure();
        values[call.getResult().getAsOpaquePointer()] = std::move(*result);
      } else if (auto end = dyn_cast<ReturnOp>(op)) {
        return values[end.getOperand(0).getAsOpaquePointer()];
      } else if (op.getNumOperands() == 1 && op.getNumResults() == 1) {
        // A transfer changes the place, not the value.
        values[op.getResult(0).getAsOpaquePointer()] =
            values[op.getOperand(0).getAsOpaquePointer()];
      } else {
        return op.emitError("is not part of a program");
      }
    }
    return program.emitError("does not return");
  }

private:
  ProgramOp program;
  const SequenceInput &input;
  weights::Sources &sources;
  SymbolTable symbols;
  llvm::DenseMap<Value, Matrix> values; ///< of the block being run
  std::map<std::string, Matrix> params;

  FailureOr<Matrix *> param(StringRef name) {
    auto it = params.find(name.str());
    if (it != params.end())
      return &it->second;
    auto op = symbols.lookup<ParamOp>(name);
    auto weightProgram = weights::WeightProgram::build(op, sources);
    if (failed(weightProgram))
      return failure();
    ArrayRef<int64_t> shape = op.getWeightType().getShape();
    Matrix matrix{shape.size() == 2 ? shape[0] : 1, shape.back(), {}};
    matrix.values.resize(size_t(matrix.rows * matrix.columns));
    for (int64_t row = 0; row < matrix.rows; ++row) {
      std::span<float> out(matrix.values.data() + row * matrix.columns,
                           size_t(matrix.columns));
      weightProgram->computeRow(row, out);
      round(op.getWeightType(), weightProgram->isOnGrid(), out);
    }
    return &(params[name.str()] = std::move(matrix));
  }

  /// What storing in the type's format does to a row.
  static void round(WeightType type, bool onGrid, std::span<float> row) {
    switch (type.getFormat()) {
    case WeightFormat::F32:
      return;
    case WeightFormat::F16:
      for (float &value : row)
        value = float(_Float16(value));
      return;
    case WeightFormat::BF16:
      for (float &value : row)
        value = weights::roundToBF16(value);
      return;
    case WeightFormat::Int8:
    case WeightFormat::Int7: {
      const auto size = size_t(type.getGroup());
      const int64_t largest = type.getPackedLayout().largest();
      std::vector<int8_t> q(size);
      for (size_t g = 0; g < row.size(); g += size) {
        const auto scale = float(
            weights::quantizeInt8(row.subspan(g, size), largest, q.data()));
        for (size_t i = 0; i < size; ++i)
          row[g + i] = scale * float(q[i]);
      }
      return;
    }
    case WeightFormat::Int4: {
      auto keep = [&](const auto &quantized) {
        for (size_t i = 0; i < row.size(); ++i)
          row[i] = quantized.value(i);
      };
      if (type.getPackedLayout().oneScale)
        return keep(weights::quantizeInt4Stepped(row, onGrid));
      return keep(weights::quantizeInt4(row, onGrid));
    }
    default:
      return; // blocks are what the file has
    }
  }

  /// What storing activations as `type` does to them.
  static void roundRows(Matrix &m, Type type) {
    if (auto floats = dyn_cast<RankedTensorType>(type);
        floats && floats.getElementType().isBF16() && getParts(type) <= 1)
      roundToBF16(m);
    auto qrows = dyn_cast<QRowsType>(type);
    if (!qrows)
      return;
    roundToIntegers(m, qrows.getGroup(), 127);
  }

  /// Of at most `most`, with a scale for each `size` neighbours.
  static void roundToIntegers(Matrix &m, int64_t size, float most) {
    for (size_t g = 0; g < m.values.size(); g += size_t(size)) {
      float largest = 0;
      for (int64_t i = 0; i < size; ++i)
        largest = std::max(largest, std::fabs(m.values[g + size_t(i)]));
      for (int64_t i = 0; i < size; ++i) {
        float &v = m.values[g + size_t(i)];
        float q = largest > 1e-30f ? std::nearbyint(v * (most / largest)) : 0;
        v = q * (largest * (1.0f / most));
      }
    }
  }

  static void roundToBF16(Matrix &m) {
    for (float &value : m.values)
      value = weights::roundToBF16(value);
  }

  FailureOr<Matrix> runBlock(CallOp call, Matrix input) {
    auto block = symbols.lookup<BlockOp>(call.getCallee());
    values.clear();
    auto arguments = block.getBody().getArguments();
    values[arguments[0]] = std::move(input);
    unsigned next =
        unsigned(call.getInputs().size()) + (call.getState() ? 1u : 0u);
    for (auto ref : call.getParams().getAsRange<FlatSymbolRefAttr>()) {
      FailureOr<Matrix *> weight = param(ref.getValue());
      if (failed(weight))
        return failure();
      values[arguments[next++]] = **weight;
    }
    for (Operation &op : block.getBody().front()) {
      if (auto end = dyn_cast<ReturnOp>(op))
        return values[end.getOperand(0)];
      if (failed(evaluate(op)))
        return failure();
    }
    return block.emitError("does not return");
  }

  LogicalResult evaluate(Operation &op) {
    return llvm::TypeSwitch<Operation &, LogicalResult>(op)
        .Case<EmbeddingOp, LinearOp, AddOp, RMSNormOp, QuantizeRowsOp, RotaryOp,
              AttentionOp, ActivateOp, GluOp, GatedLinearOp, ScaleOp,
              LayerNormOp, PositionEmbeddingOp, SelectRowsOp, AddVectorOp,
              ClassTokenOp, MeanRowsOp, L2NormOp>([&](auto typed) {
          Matrix result = compute(typed);
          roundRows(result, typed->getResult(0).getType());
          values[typed->getResult(0)] = std::move(result);
          return success();
        })
        .Default([](Operation &other) {
          return other.emitError("has no reference semantics");
        });
  }

  Matrix compute(EmbeddingOp op) {
    const Matrix &table = values[op.getTable()];
    Matrix y{int64_t(input.tokens.size()), table.columns, {}};
    for (int32_t id : input.tokens)
      y.values.insert(y.values.end(), table.values.begin() + id * table.columns,
                      table.values.begin() + (id + 1) * table.columns);
    return y;
  }

  static double dot(const Matrix &x, int64_t t, const Matrix &w, int64_t n) {
    double sum = 0;
    for (int64_t k = 0; k < w.columns; ++k)
      sum += double(x.at(t, k)) * double(w.at(n, k));
    return sum;
  }

  Matrix compute(LinearOp op) {
    const Matrix &x = values[op.getX()], &w = values[op.getWeight()];
    Matrix y{x.rows, w.rows, std::vector<float>(size_t(x.rows * w.rows))};
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t n = 0; n < w.rows; ++n) {
        double sum = dot(x, t, w, n);
        if (op.getBias())
          sum += double(values[op.getBias()].at(0, n));
        if (op.getResidual())
          sum += double(values[op.getResidual()].at(t, n));
        y.at(t, n) = float(sum);
      }
    return y;
  }

  Matrix compute(AddOp op) {
    Matrix y = values[op.getLhs()];
    const Matrix &other = values[op.getRhs()];
    for (size_t i = 0; i < y.values.size(); ++i)
      y.values[i] += other.values[i];
    return y;
  }

  Matrix compute(RMSNormOp op) {
    Matrix y = values[op.getX()];
    const Matrix &w = values[op.getWeight()];
    const int64_t size = w.columns; // of a head
    for (int64_t t = 0; t < y.rows; ++t)
      for (int64_t first = 0; first < y.columns; first += size) {
        double squares = 0;
        for (int64_t i = 0; i < size; ++i)
          squares += double(y.at(t, first + i)) * double(y.at(t, first + i));
        double scale = 1.0 / std::sqrt(squares / double(size) +
                                       op.getEpsilon().convertToDouble());
        for (int64_t i = 0; i < size; ++i)
          y.at(t, first + i) =
              float(double(y.at(t, first + i)) * scale * double(w.at(0, i)));
      }
    return y;
  }

  Matrix compute(LayerNormOp op) {
    Matrix y = values[op.getX()];
    const Matrix &w = values[op.getWeight()], &bias = values[op.getBias()];
    const auto size = double(y.columns);
    for (int64_t t = 0; t < y.rows; ++t) {
      double mean = 0, squares = 0;
      for (int64_t i = 0; i < y.columns; ++i)
        mean += double(y.at(t, i)) / size;
      for (int64_t i = 0; i < y.columns; ++i)
        squares += std::pow(double(y.at(t, i)) - mean, 2);
      double scale =
          1.0 / std::sqrt(squares / size + op.getEpsilon().convertToDouble());
      for (int64_t i = 0; i < y.columns; ++i)
        y.at(t, i) =
            float((double(y.at(t, i)) - mean) * scale * double(w.at(0, i)) +
                  double(bias.at(0, i)));
    }
    return y;
  }

  Matrix compute(ScaleOp op) {
    Matrix y = values[op.getX()];
    for (float &v : y.values)
      v *= float(op.getFactor().convertToDouble());
    return y;
  }

  Matrix compute(PositionEmbeddingOp op) {
    Matrix y = values[op.getX()];
    const Matrix &table = values[op.getTable()];
    for (int64_t t = 0; t < y.rows; ++t)
      for (int64_t i = 0; i < y.columns; ++i)
        y.at(t, i) += table.at(t, i);
    return y;
  }

  Matrix compute(QuantizeRowsOp op) { return values[op.getX()]; }

  Matrix compute(RotaryOp op) {
    const Matrix &x = values[op.getX()];
    Matrix y = x;
    int64_t dim = op.getHeadDim();
    const auto frequencies = op.getFrequencies();
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t head = 0; head < x.columns; head += dim)
        for (int64_t i = 0; i < dim / 2; ++i) {
          double angle = double(float(t) * frequencies[size_t(i)]);
          double a = x.at(t, head + i), b = x.at(t, head + i + dim / 2);
          y.at(t, head + i) = float(a * std::cos(angle) - b * std::sin(angle));
          y.at(t, head + i + dim / 2) =
              float(b * std::cos(angle) + a * std::sin(angle));
        }
    return y;
  }

  Matrix compute(AttentionOp op) {
    Matrix q = values[op.getQ()], k = values[op.getK()], v = values[op.getV()];
    const bool bf16 = op.getKvFormat() == WeightFormat::BF16;
    if (op.getKvFormat() == WeightFormat::F16)
      for (Matrix *cached : {&k, &v})
        for (float &value : cached->values)
          value = float(_Float16(value));
    if (bf16)
      for (Matrix *rounded : {&q, &k, &v})
        roundToBF16(*rounded);
    int64_t heads = op.getHeads(), group = heads / int64_t(op.getKvHeads());
    int64_t dim = q.columns / heads;
    if (op.getKvFormat() == WeightFormat::Int8) {
      for (Matrix *cached : {&k, &v})
        roundToIntegers(*cached, dim, 127);
      roundToIntegers(q, dim, 32767);
    }
    Matrix y{q.rows, q.columns, std::vector<float>(q.values.size())};
    for (int64_t t = 0; t < q.rows; ++t)
      for (int64_t h = 0; h < heads; ++h) {
        int64_t kv = h / group * dim;
        std::vector<double> probabilities;
        double largest = -INFINITY, sum = 0;
        const int64_t end = op.getBidirectional() ? q.rows : t + 1;
        for (int64_t p = 0; p < end; ++p) {
          double score = 0;
          for (int64_t d = 0; d < dim; ++d)
            score += double(q.at(t, h * dim + d)) * double(k.at(p, kv + d));
          score *= op.getScale().convertToDouble();
          bool visible = !op.getWindow() || p < int64_t(*op.getSinks()) ||
                         p > t - int64_t(*op.getWindow());
          probabilities.push_back(visible ? score : -INFINITY);
          largest = std::max(largest, probabilities.back());
        }
        for (double &p : probabilities) {
          p = std::exp(p - largest);
          if (bf16)
            p = double(weights::roundToBF16(float(p)));
          sum += p;
        }
        if (op.getKvFormat() == WeightFormat::Int8)
          roundProbabilities(probabilities, v, kv, dim);
        for (int64_t d = 0; d < dim; ++d) {
          double out = 0;
          for (int64_t p = 0; p < end; ++p)
            out += probabilities[size_t(p)] * double(v.at(p, kv + d));
          y.at(t, h * dim + d) = float(out / sum);
        }
      }
    return y;
  }

  /// With an int8 cache probabilities become int16, multiplied by the scales of
  /// their values, which are 1/127 of the largest value of the head; each
  /// partition has a scale of its own.
  static void roundProbabilities(std::vector<double> &probabilities,
                                 const Matrix &v, int64_t firstFeature,
                                 int64_t features) {
    constexpr size_t kPartition = rt::kPartitionPositions;
    std::vector<double> scales(probabilities.size(), 0);
    for (size_t p = 0; p < scales.size(); ++p)
      for (int64_t d = 0; d < features; ++d)
        scales[p] = std::max(
            scales[p], std::fabs(double(v.at(int64_t(p), firstFeature + d))));
    for (size_t first = 0; first < scales.size(); first += kPartition) {
      const size_t last = std::min(first + kPartition, scales.size());
      double unit = 0;
      for (size_t p = first; p < last; ++p)
        unit = std::max(unit, probabilities[p] * scales[p] / 32767);
      for (size_t p = first; p < last && unit > 0; ++p)
        if (scales[p] > 0)
          probabilities[p] =
              std::nearbyint(probabilities[p] * scales[p] / unit) * unit /
              scales[p];
    }
  }

  static double apply(Function function, double x) {
    switch (function) {
    case Function::Silu:
      return x / (1.0 + std::exp(-x));
    case Function::GeluTanh:
      return x / 2 *
             (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Function::GeluErf:
      return x / 2 * (1 + std::erf(x / std::sqrt(2)));
    case Function::QuickGelu:
      return x / (1.0 + std::exp(-1.702 * x));
    }
    llvm_unreachable("unknown function");
  }

  Matrix compute(ActivateOp op) {
    Matrix y = values[op.getX()];
    for (float &v : y.values)
      v = float(apply(op.getFunction(), double(v)));
    return y;
  }

  Matrix compute(GatedLinearOp op) {
    const Matrix &x = values[op.getX()], &gate = values[op.getGate()],
                 &up = values[op.getUp()];
    Matrix y{x.rows, gate.rows, std::vector<float>(size_t(x.rows * gate.rows))};
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t n = 0; n < gate.rows; ++n)
        y.at(t, n) =
            float(apply(op.getFunction(), double(float(dot(x, t, gate, n)))) *
                  double(float(dot(x, t, up, n))));
    return y;
  }

  Matrix compute(GluOp op) {
    Matrix y = values[op.getGate()];
    const Matrix &up = values[op.getUp()];
    for (size_t i = 0; i < y.values.size(); ++i)
      y.values[i] = float(apply(op.getFunction(), double(y.values[i])) *
                          double(up.values[i]));
    return y;
  }

  Matrix compute(SelectRowsOp op) { return values[op.getX()]; }

  Matrix compute(AddVectorOp op) {
    Matrix y = values[op.getX()];
    const Matrix &vector = values[op.getVector()];
    for (int64_t t = 0; t < y.rows; ++t)
      for (int64_t i = 0; i < y.columns; ++i)
        y.at(t, i) += vector.at(0, i);
    return y;
  }

  Matrix compute(ClassTokenOp op) {
    Matrix y = values[op.getX()];
    const Matrix &token = values[op.getToken()];
    for (int64_t i = 0; i < y.columns; ++i)
      y.at(0, i) = token.at(0, i);
    return y;
  }

  Matrix compute(MeanRowsOp op) {
    Matrix y = values[op.getX()];
    for (int64_t i = 0; i < y.columns; ++i) {
      double sum = 0;
      for (int64_t t = 0; t < y.rows; ++t)
        sum += double(y.at(t, i));
      for (int64_t t = 0; t < y.rows; ++t)
        y.at(t, i) = float(sum / double(y.rows));
    }
    return y;
  }

  Matrix compute(L2NormOp op) {
    Matrix y = values[op.getX()];
    for (int64_t t = 0; t < y.rows; ++t) {
      double squares = 0;
      for (int64_t i = 0; i < y.columns; ++i)
        squares += double(y.at(t, i)) * double(y.at(t, i));
      for (int64_t i = 0; i < y.columns; ++i)
        y.at(t, i) =
            float(double(y.at(t, i)) / std::max(std::sqrt(squares), 1e-12));
    }
    return y;
  }
};
} // namespace

FailureOr<Matrix> isthmus::fm::interpret(ProgramOp program,
                                         const SequenceInput &input,
                                         weights::Sources &sources) {
  return Interpreter(program, input, sources).run();
}
