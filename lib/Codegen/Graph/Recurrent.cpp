//===- Recurrent.cpp - RNN, GRU, LSTM -------------------------------------===//
//
// One tile is a sequence in one direction: its steps follow one another, with
// the states in the thread's scratch memory.
//
//===----------------------------------------------------------------------===//
#include "Matrix.h"

#include "mlir/IR/BuiltinAttributes.h"

using namespace mlir;
using namespace isthmus;
using Scalars = NodeBuilder::Scalars;
using State = ArrayRef<Scalar>;

namespace {
/// X, W, R, B, sequence_lens, initial_h; of LSTM initial_c and P too.
class Recurrent {
public:
  Recurrent(NodeBuilder &n, size_t gates, size_t activationsPerDirection)
      : n(n), gates(gates), perDirection(activationsPerDirection),
        batchFirst(n.integer("layout", 0)),
        direction(n.text("direction", "forward")),
        directions(direction == "bidirectional" ? 2 : 1),
        type(NodeBuilder::computeType(n.operand(0).type)) {
    steps = n.size(0, batchFirst ? 1 : 0);
    batch = n.size(0, batchFirst ? 0 : 1);
    features = n.size(0, 2);
    hidden = n.size(2, 2);
  }

  NodeBuilder &n;
  const size_t gates, perDirection;
  const bool batchFirst;
  const std::string direction;
  const size_t directions;
  const DataType type;
  Scalar steps, batch, features, hidden;

  void shape() {
    auto d = n.index(int64_t(directions));
    n.require((n.size(1, 0) == d) & (n.size(2, 0) == d) &
                  (n.size(1, 1) == hidden * double(gates)) &
                  (n.size(2, 1) == hidden * double(gates)) &
                  (n.size(1, 2) == features),
              rt::kGraphSizes);
    auto count = [&](size_t input, Scalar wanted) {
      if (n.has(input))
        n.require(n.count(input) == wanted, rt::kGraphSizes);
    };
    count(3, d * hidden * double(2 * gates));
    count(4, batch);
    count(5, d * batch * hidden);
    if (gates == 4) {
      count(6, d * batch * hidden);
      count(7, d * hidden * 3);
    }
    Scalars all = batchFirst ? Scalars{batch, steps, d, hidden}
                             : Scalars{steps, d, batch, hidden};
    Scalars last =
        batchFirst ? Scalars{batch, d, hidden} : Scalars{d, batch, hidden};
    shapeOf(n, 0, all);
    shapeOf(n, 1, last);
    shapeOf(n, 2, last);
    n.setTiles(d * batch);
    // h twice, c, the gates.
    n.setScratch(hidden * double((3 + gates) * 8) + 64);
  }

  // Scratch: areas of `hidden` numbers.
  Scalar place(size_t area, Scalar i) {
    return (hidden * double(area) + i) * double(rt::bytesOf(type));
  }
  Scalar get(size_t area, Scalar i) {
    return n.loadScratch(type, place(area, i));
  }
  void set(size_t area, Scalar i, Scalar value) {
    n.storeScratch(place(area, i), value);
  }
  size_t gateArea(size_t gate) const { return 3 + gate; }

  Scalar clip(Scalar x) {
    const double limit = n.number("clip", 0);
    return limit > 0 ? max(min(x, limit), -limit) : x;
  }

  Scalar activate(size_t which, size_t d, StringRef otherwise, Scalar x) {
    const size_t index = d * perDirection + which;
    StringRef name = otherwise;
    if (auto names = n.spec.attributes.getAs<ArrayAttr>("activations"))
      if (index < names.size())
        name = cast<StringAttr>(names[index]).getValue();
    auto parameter = [&](StringRef attribute, double fallback) {
      auto values = n.numbers(attribute);
      return index < values.size() ? values[index] : fallback;
    };
    const double alpha = name.equals_insensitive("LeakyRelu")     ? 0.01
                         : name.equals_insensitive("HardSigmoid") ? 0.2
                                                                  : 1.0;
    const double beta = name.equals_insensitive("HardSigmoid") ? 0.5 : 0.0;
    return activationOf(name, x, parameter("activation_alpha", alpha),
                        parameter("activation_beta", beta));
  }

  Scalar bias(size_t d, size_t gate, Scalar i, bool recurrent) {
    if (!n.has(3))
      return n.constant(type, 0);
    return n.load(
        3,
        (hidden * double(d * 2 * gates + gate + (recurrent ? gates : 0))) + i);
  }

  /// True if all is f32 as it stands.
  bool plain() const {
    return n.operand(0).type == DataType::F32 &&
           n.operand(1).type == DataType::F32 &&
           n.operand(2).type == DataType::F32;
  }

  /// W x of a gate.
  Scalar fromInput(size_t d, size_t gate, Scalar i, Scalar t, Scalar b) {
    Scalar row = (hidden * double(d * gates + gate) + i) * features;
    Scalar x = (batchFirst ? b * steps + t : t * batch + b) * features;
    if (plain())
      return dotProduct(n, n.address(1, row), n.address(0, x), features);
    return n.sum(n.index(0), features, n.constant(type, 0), [&](Scalar k) {
      return n.load(1, row + k) * n.load(0, x + k);
    });
  }
  /// R h of a gate; h stands in an area of the scratch.
  Scalar fromState(size_t d, size_t gate, Scalar i, size_t area) {
    Scalar row = (hidden * double(d * gates + gate) + i) * hidden;
    if (plain())
      return dotProduct(n, n.address(2, row),
                        n.k.ptr(n.k.scratch, place(area, n.index(0)).value),
                        hidden);
    return n.sum(n.index(0), hidden, n.constant(type, 0),
                 [&](Scalar k) { return n.load(2, row + k) * get(area, k); });
  }

  /// Runs all sequences; `step` computes the next h into area 1 from that in
  /// area 0.
  void run(function_ref<void(size_t d, Scalar t, Scalar b)> step) {
    n.loop({&n, n.k.begin, DataType::I64}, {&n, n.k.end, DataType::I64},
           [&](Scalar tile) {
             Scalar own = tile / max(batch, 1), b = tile - own * batch;
             for (size_t d = 0; d < directions; ++d)
               n.when(own == double(d), [&] { sequence(d, b, step); });
           });
  }

private:
  void sequence(size_t d, Scalar b,
                function_ref<void(size_t, Scalar, Scalar)> step) {
    const bool backward = direction == "reverse" || d == 1;
    Scalar length = n.has(4) ? n.convert(n.load(4, b), DataType::I64) : steps;
    length = min(max(length, 0), steps);
    Scalar stateAt = batchFirst ? (b * double(directions) + double(d)) * hidden
                                : (batch * double(d) + b) * hidden;
    n.loop(n.index(0), hidden, [&](Scalar i) {
      set(0, i, n.has(5) ? n.load(5, stateAt + i) : n.constant(type, 0));
      if (gates == 4)
        set(2, i, n.has(6) ? n.load(6, stateAt + i) : n.constant(type, 0));
    });
    auto resultAt = [&](Scalar t) {
      return (batchFirst ? (b * steps + t) * double(directions) + double(d)
                         : (t * double(directions) + double(d)) * batch + b) *
             hidden;
    };
    n.loop(n.index(0), steps, [&](Scalar s) {
      n.when(s < length, [&] {
        Scalar t = backward ? length - 1 - s : s;
        step(d, t, b);
        n.loop(n.index(0), hidden, [&](Scalar i) {
          Scalar h = get(1, i);
          set(0, i, h);
          if (n.has(n.out()))
            n.store(n.out(), resultAt(t) + i, h);
        });
      });
      if (n.has(n.out()))
        n.when(s >= length, [&] {
          n.loop(n.index(0), hidden, [&](Scalar i) {
            n.store(n.out(), resultAt(s) + i, n.constant(type, 0));
          });
        });
    });
    n.loop(n.index(0), hidden, [&](Scalar i) {
      if (n.has(n.out(1)))
        n.store(n.out(1), stateAt + i, get(0, i));
      if (n.has(n.out(2)))
        n.store(n.out(2), stateAt + i, get(2, i));
    });
  }
};

void shapeRNN(NodeBuilder &n) { Recurrent(n, 1, 1).shape(); }
void computeRNN(NodeBuilder &n) {
  Recurrent r(n, 1, 1);
  r.run([&](size_t d, Scalar t, Scalar b) {
    n.loop(n.index(0), r.hidden, [&](Scalar i) {
      Scalar x = r.fromInput(d, 0, i, t, b) + r.fromState(d, 0, i, 0) +
                 r.bias(d, 0, i, false) + r.bias(d, 0, i, true);
      r.set(1, i, r.activate(0, d, "Tanh", r.clip(x)));
    });
  });
}

void shapeGRU(NodeBuilder &n) { Recurrent(n, 3, 2).shape(); }
void computeGRU(NodeBuilder &n) {
  Recurrent r(n, 3, 2);
  const bool resetAfter = n.integer("linear_before_reset", 0);
  r.run([&](size_t d, Scalar t, Scalar b) {
    auto whole = [&](size_t gate, Scalar i) {
      return r.clip(r.fromInput(d, gate, i, t, b) + r.fromState(d, gate, i, 0) +
                    r.bias(d, gate, i, false) + r.bias(d, gate, i, true));
    };
    n.loop(n.index(0), r.hidden, [&](Scalar i) {
      Scalar z = r.activate(0, d, "Sigmoid", whole(0, i));
      Scalar reset = r.activate(0, d, "Sigmoid", whole(1, i));
      r.set(r.gateArea(0), i, z);
      r.set(r.gateArea(1), i, reset);
      r.set(r.gateArea(2), i, reset * r.get(0, i));
    });
    n.loop(n.index(0), r.hidden, [&](Scalar i) {
      Scalar input = r.fromInput(d, 2, i, t, b) + r.bias(d, 2, i, false);
      Scalar state =
          resetAfter
              ? r.get(r.gateArea(1), i) *
                    (r.fromState(d, 2, i, 0) + r.bias(d, 2, i, true))
              : r.fromState(d, 2, i, r.gateArea(2)) + r.bias(d, 2, i, true);
      Scalar candidate = r.activate(1, d, "Tanh", r.clip(input + state));
      Scalar z = r.get(r.gateArea(0), i);
      r.set(1, i, (1.0 - z) * candidate + z * r.get(0, i));
    });
  });
}

void shapeLSTM(NodeBuilder &n) { Recurrent(n, 4, 3).shape(); }
void computeLSTM(NodeBuilder &n) {
  Recurrent r(n, 4, 3);
  // Gates stand in the order input, output, forget, cell; peepholes i, o, f.
  r.run([&](size_t d, Scalar t, Scalar b) {
    auto peephole = [&](size_t gate, Scalar i, Scalar c) {
      return n.has(7) ? n.load(7, r.hidden * double(3 * d + gate) + i) * c
                      : n.constant(r.type, 0);
    };
    n.loop(n.index(0), r.hidden, [&](Scalar i) {
      auto whole = [&](size_t gate) {
        return r.fromInput(d, gate, i, t, b) + r.fromState(d, gate, i, 0) +
               r.bias(d, gate, i, false) + r.bias(d, gate, i, true);
      };
      Scalar c = r.get(2, i);
      Scalar input =
          r.activate(0, d, "Sigmoid", r.clip(whole(0) + peephole(0, i, c)));
      Scalar forget = n.integer("input_forget", 0)
                          ? 1.0 - input
                          : r.activate(0, d, "Sigmoid",
                                       r.clip(whole(2) + peephole(2, i, c)));
      Scalar candidate = r.activate(1, d, "Tanh", r.clip(whole(3)));
      Scalar next = forget * c + input * candidate;
      Scalar output =
          r.activate(0, d, "Sigmoid", r.clip(whole(1) + peephole(1, i, next)));
      r.set(2, i, next);
      r.set(1, i, output * r.activate(2, d, "Tanh", next));
    });
  });
}

bool knownActivations(const NodeSpec &spec) {
  if (auto names = spec.attributes.getAs<ArrayAttr>("activations"))
    for (StringRef name : names.getAsValueRange<StringAttr>())
      if (!llvm::is_contained({"relu", "tanh", "sigmoid", "affine", "leakyrelu",
                               "thresholdedrelu", "scaledtanh", "hardsigmoid",
                               "elu", "softsign", "softplus"},
                              name.lower()))
        return false;
  return spec.inputs.size() > 2;
}

constexpr Operator kTable[] = {
    {"RNN", shapeRNN, computeRNN, 1, knownActivations},
    {"GRU", shapeGRU, computeGRU, 1, knownActivations},
    {"LSTM", shapeLSTM, computeLSTM, 1, knownActivations},
};
} // namespace

OperatorTable isthmus::recurrentOperators() { return kTable; }
