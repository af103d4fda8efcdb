//===- DotProducts.cpp - the instruction-set part of integer products -----===//
//
// Adding an instruction set means adding one function here, a case of
// emitDotStart if it takes weights with something added, and one entry to the
// table in lib/Target. All of them give the same integers.
//
//===----------------------------------------------------------------------===//
#include "DotProducts.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

#include <map>

using namespace mlir;
using namespace isthmus;

namespace {
using Values = KernelBuilder::Values;

constexpr int64_t kStep = 64; ///< inputs of a step of a long dot product

/// Which values of which weight.
struct Part {
  const PackedLayout &weight;
  int64_t inputs;
  Value block;
};

/// Bytes of the nibbles of a group, after which upper bits come.
int64_t nibbleBytes(const PackedLayout &weight) {
  return PackedLayout::kPanel * weight.group() / 2;
}

/// Nibbles of inputs of `quad` with the upper bits of `upper`, if there are any
/// (PackedLayout.h).
Value withUpperBits(KernelBuilder &k, const PackedLayout &weight, Value nibbles,
                    Value upper, int64_t quad) {
  const int64_t bits = bitsOf(weight.format) - 4;
  if (bits == 0)
    return nibbles;
  Type type = nibbles.getType();
  const int64_t shift = 4 - bits * quad;
  if (shift > 0)
    upper = arith::ShLIOp::create(k.b, k.loc, upper, k.cst(type, shift));
  if (shift < 0)
    upper = arith::ShRUIOp::create(k.b, k.loc, upper, k.cst(type, -shift));
  Value own = arith::AndIOp::create(
      k.b, k.loc, upper, k.cst(type, ((int64_t(1) << bits) - 1) << 4));
  return arith::OrIOp::create(k.b, k.loc, nibbles, own);
}

/// Walks over chunks of 4 inputs x 16 outputs and hands each piece of `width`
/// bytes (width / 4 outputs) to `use(piece, bytes, quad)`; bytes are values
/// from 0 on where they are nibbles, with upper bits or without, else signed
/// ones, and `quad` is which group of four inputs they belong to.
template <typename Use>
void forEachPiece(KernelBuilder &k, const Part &part, int64_t width, Use use) {
  const bool nibbles = hasNibbles(part.weight.format);
  const int64_t chunks = part.inputs / (nibbles ? 8 : 4);
  VectorType bytes = k.vec(width, k.i8());
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    for (int64_t piece = 0; piece < 64 / width; ++piece) {
      Value v = k.load(bytes, part.block, chunk * 64 + piece * width);
      if (!nibbles) {
        use(piece, v, chunk);
        continue;
      }
      auto complete = [&](Value nibble, int64_t quad) {
        Value upper = bitsOf(part.weight.format) == 4
                          ? Value()
                          : k.load(bytes, part.block,
                                   nibbleBytes(part.weight) + piece * width);
        use(piece, withUpperBits(k, part.weight, nibble, upper, quad), quad);
      };
      complete(arith::AndIOp::create(k.b, k.loc, v, k.cst(bytes, 15)), chunk);
      complete(arith::ShRUIOp::create(k.b, k.loc, v, k.cst(bytes, 4)),
               chunk + chunks);
    }
  }
}

/// The same with all pieces of some blocks at once: `use(pieces, quad)` is
/// given them as [block][piece].
template <typename Use>
void forEachQuad(KernelBuilder &k, const PackedLayout &weight, int64_t inputs,
                 const Values &blocks, int64_t width, Use use) {
  VectorType bytes = k.vec(width, k.i8());
  const int64_t chunks = inputs / (hasNibbles(weight.format) ? 8 : 4);
  auto loadAll = [&](int64_t offset) {
    Values loaded;
    for (Value block : blocks)
      for (int64_t at = 0; at < 64; at += width)
        loaded.push_back(k.load(bytes, block, offset + at));
    return loaded;
  };
  const bool hasUpper = bitsOf(weight.format) > 4;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    Values loaded = loadAll(chunk * 64);
    if (!hasNibbles(weight.format)) {
      use(loaded, chunk);
      continue;
    }
    for (bool second : {false, true}) {
      const int64_t quad = chunk + (second ? chunks : 0);
      // (Any will do where there are none.)
      Values upper = hasUpper ? loadAll(nibbleBytes(weight)) : loaded, own;
      for (auto [v, above] : llvm::zip_equal(loaded, upper)) {
        Value nibbles =
            second
                ? Value(arith::ShRUIOp::create(k.b, k.loc, v, k.cst(bytes, 4)))
                : arith::AndIOp::create(k.b, k.loc, v, k.cst(bytes, 15));
        own.push_back(withUpperBits(k, weight, nibbles, above, quad));
      }
      use(own, quad);
    }
  }
}

/// The sums in registers of `lanes` lanes, [row][register], and back.
Values split(KernelBuilder &k, const Values &sums, int64_t lanes) {
  Values parts;
  for (Value sum : sums)
    for (int64_t from = 0; from < kLanes; from += lanes)
      parts.push_back(lanes == kLanes ? sum : k.slice(sum, from, lanes));
  return parts;
}
Values join(KernelBuilder &k, Values parts) {
  while (cast<VectorType>(parts[0].getType()).getNumElements() < kLanes) {
    Values wider;
    for (size_t i = 0; i < parts.size(); i += 2)
      wider.push_back(k.concat(parts[i], parts[i + 1]));
    parts = wider;
  }
  return parts;
}

/// The four inputs of `quad`, repeated over `width` bytes.
Value broadcastQuad(KernelBuilder &k, Value row, int64_t quad, int64_t width) {
  Value four = k.splat(k.load(k.i32(), row, quad * 4), width / 4);
  return vector::BitCastOp::create(k.b, k.loc, k.vec(width, k.i8()), four);
}

/// |x| of bytes, unsigned.
Value magnitudeOf(KernelBuilder &k, Value x) {
  Value isPoison =
      arith::ConstantOp::create(k.b, k.loc, k.b.getBoolAttr(false));
  return LLVM::CallIntrinsicOp::create(k.b, k.loc, x.getType(),
                                       k.b.getStringAttr("llvm.abs"),
                                       ValueRange{x, isPoison})
      .getResult(0);
}

/// vpmaddubsw multiplies unsigned by signed bytes and adds pairs with 16-bit
/// saturation. Nibbles can be summed in 16 bits for a while: 8 pairs of 15 *
/// 127 stay below 2^15, and so do 4 of 31 and 2 of 63. For bytes the weight's
/// sign moves to the activation: |w| * (sign(w) x), at most 2 * 128 * 127 <
/// 2^15 (rows of products have no -128, weights of q8_0 may). Weights of seven
/// bits have 64 added instead, and sums start from the correction: at most 2 *
/// 128 * 127 as well. Both halves of 16 outputs take what was loaded of a row
/// at once: there are no registers to keep it in.
Values dotAvx2(KernelBuilder &k, const Part &part, const Values &rows,
               const Values &sums) {
  constexpr int64_t kHalf = 32;
  const bool nibbles = hasNibbles(part.weight.format);
  const int64_t mostWords = 128 >> bitsOf(part.weight.format);
  const bool seven = part.weight.range == ByteRange::SevenBits;
  VectorType bytes = k.vec(kHalf, k.i8()), words = k.vec(16, k.i16()),
             ints = k.vec(8, k.i32());
  Values acc = split(k, sums, 8), pending(acc.size()); // [row][half]
  int64_t held = 0;
  auto flush = [&](size_t i) {
    acc[i] = k.add(acc[i], k.intrinsic("llvm.x86.avx2.pmadd.wd", ints,
                                       {pending[i], k.cst(words, 1)}));
    pending[i] = nullptr;
  };
  auto multiply = [&](const Values &halves, int64_t quad) {
    Values unsignedValues;
    for (Value w : halves)
      unsignedValues.push_back(
          nibbles ? w
          : seven ? k.add(w, k.cst(bytes, part.weight.largest()))
                  : magnitudeOf(k, w));
    for (auto [r, row] : llvm::enumerate(rows)) {
      Value four = broadcastQuad(k, row, quad, kHalf);
      for (auto [half, w] : llvm::enumerate(halves)) {
        Value x = nibbles || seven
                      ? four
                      : k.intrinsic("llvm.x86.avx2.psign.b", bytes, {four, w});
        Value pairs = k.intrinsic("llvm.x86.avx2.pmadd.ub.sw", words,
                                  {unsignedValues[half], x});
        const size_t i = 2 * r + half;
        pending[i] = pending[i] ? k.add(pending[i], pairs) : pairs;
        if (!nibbles)
          flush(i);
        Value &own = nibbles ? pending[i] : acc[i];
        own = k.inOrder(own);
      }
    }
    if (nibbles && ++held == mostWords) {
      for (size_t i = 0; i < pending.size(); ++i)
        flush(i);
      held = 0;
    }
  };
  forEachQuad(k, part.weight, part.inputs, {part.block}, kHalf, multiply);
  return join(k, acc);
}

/// The same for any bytes, -128 among them: as int16, whose products vpmaddwd
/// adds in pairs exactly. A register has two sums of each of four outputs, so
/// rows come two by two.
Values dotAvx2Words(KernelBuilder &k, const Part &part, const Values &rows,
                    const Values &sums) {
  constexpr size_t kRows = 2, kPieces = 4; // registers of 16 outputs
  constexpr int64_t kBytes = 16;           // of a register, as bytes
  VectorType ints = k.vec(8, k.i32()), words = k.vec(kBytes, k.i16());
  auto widen = [&](Value bytes) -> Value {
    return arith::ExtSIOp::create(k.b, k.loc, words, bytes);
  };
  auto everySecond = [&](Value a, Value b, int64_t first) -> Value {
    SmallVector<int64_t> order;
    for (int64_t lane = first; lane < 16; lane += 2)
      order.push_back(lane);
    return vector::ShuffleOp::create(k.b, k.loc, a, b, order);
  };
  Values out;
  for (size_t first = 0; first < rows.size(); first += kRows) {
    auto own =
        ArrayRef(rows).slice(first, std::min(kRows, rows.size() - first));
    Values acc(own.size() * kPieces); // [row][piece]
    for (int64_t quad = 0; quad < part.inputs / 4; ++quad) {
      Values weights;
      for (int64_t at = 0; at < 64; at += kBytes)
        weights.push_back(
            widen(k.load(k.vec(kBytes, k.i8()), part.block, quad * 64 + at)));
      for (auto [r, row] : llvm::enumerate(own)) {
        Value x = widen(broadcastQuad(k, row, quad, kBytes));
        for (size_t piece = 0; piece < kPieces; ++piece) {
          Value &sum = acc[r * kPieces + piece];
          Value pairs =
              k.intrinsic("llvm.x86.avx2.pmadd.wd", ints, {weights[piece], x});
          sum = k.inOrder(sum ? k.add(sum, pairs) : pairs);
        }
      }
    }
    for (size_t r = 0; r < own.size(); ++r) {
      Values halves;
      for (size_t i = r * kPieces; i < (r + 1) * kPieces; i += 2)
        halves.push_back(k.add(everySecond(acc[i], acc[i + 1], 0),
                               everySecond(acc[i], acc[i + 1], 1)));
      out.push_back(k.add(sums[first + r], k.concat(halves[0], halves[1])));
    }
  }
  return out;
}

/// vpdpbusd wants unsigned weights: int8 gets 128 added (a flipped sign bit)
/// and the sums start from the correction. `bytes` is the width of its
/// registers. Panels take turns, so that all use what was loaded of a row.
Values dotVnni(KernelBuilder &k, const PackedLayout &weight, int64_t inputs,
               const Values &blocks, const Values &rows, const Values &sums,
               int64_t bytes) {
  const bool nibbles = hasNibbles(weight.format);
  const int64_t lanes = bytes / 4, pieces = 64 / bytes;
  VectorType ints = k.vec(lanes, k.i32()), values = k.vec(bytes, k.i8());
  std::string name = "llvm.x86.avx512.vpdpbusd." + std::to_string(bytes * 8);
  Values acc = split(k, sums, lanes); // [panel][row][piece]
  auto multiply = [&](const Values &weights, int64_t quad) {
    for (auto [r, row] : llvm::enumerate(rows)) {
      Value x = broadcastQuad(k, row, quad, bytes);
      for (size_t p = 0; p < blocks.size(); ++p)
        for (size_t piece = 0; piece < size_t(pieces); ++piece) {
          Value &sum = acc[(p * rows.size() + r) * size_t(pieces) + piece];
          sum = k.intrinsic(name, ints,
                            {sum, weights[p * size_t(pieces) + piece], x});
        }
    }
  };
  forEachQuad(k, weight, inputs, blocks, bytes,
              [&](const Values &loaded, int64_t quad) {
                if (nibbles)
                  return multiply(loaded, quad);
                Values unsignedValues;
                for (Value v : loaded)
                  unsignedValues.push_back(arith::XOrIOp::create(
                      k.b, k.loc, v, k.cst(values, -128)));
                multiply(unsignedValues, quad);
              });
  return join(k, acc);
}

/// sdot takes its four inputs from a lane of a register: rows are loaded whole,
/// and nothing is broadcast.
Values dotNeon(KernelBuilder &k, const Part &part, const Values &rows,
               const Values &sums) {
  constexpr int64_t kQuads = 4; // of a register
  VectorType ints = k.vec(4, k.i32()), bytes = k.vec(16, k.i8());
  const int64_t registers = part.inputs / (4 * kQuads); // of a row
  Values acc = split(k, sums, 4), inputs;               // [row][register]
  for (Value row : rows)
    for (int64_t i = 0; i < registers; ++i)
      inputs.push_back(k.load(ints, row, 16 * i));
  forEachPiece(k, part, 16, [&](int64_t piece, Value w, int64_t quad) {
    for (size_t r = 0; r < rows.size(); ++r) {
      Value &sum = acc[4 * r + size_t(piece)];
      Value held = inputs[r * size_t(registers) + size_t(quad / kQuads)];
      Value four = vector::ShuffleOp::create(
          k.b, k.loc, held, held, SmallVector<int64_t>(4, quad % kQuads));
      sum = k.intrinsic("llvm.aarch64.neon.sdot", ints,
                        {sum, w, k.bitcast(bytes, four)});
    }
  });
  return join(k, acc);
}

/// Lanes of `a` and `b`, 32 bits or 64, in turn: the first halves' or the
/// second halves'.
Value zip(KernelBuilder &k, Value a, Value b, bool second, int64_t lanes) {
  SmallVector<int64_t> order;
  const int64_t first = second ? 2 : 0;
  for (int64_t i = 0; i < 4; ++i)
    order.push_back(lanes == 4 ? first + i / 2 + i % 2 * 4
                               : first + i % 2 + i / 2 * 4);
  return vector::ShuffleOp::create(k.b, k.loc, a, b, order);
}

/// smmla multiplies two rows of eight inputs with two outputs of eight. Two
/// registers of weights, four outputs with four inputs each, become two of two
/// outputs with eight inputs; sums of two rows stand together until the end.
Values dotNeonMatrix(KernelBuilder &k, const Part &part, const Values &rows,
                     const Values &sums) {
  if (rows.size() % 2 != 0)
    return dotNeon(k, part, rows, sums);
  constexpr int64_t kPieces = 4; // registers of 16 outputs
  VectorType ints = k.vec(4, k.i32()), bytes = k.vec(16, k.i8());
  const size_t pairs = rows.size() / 2, eights = size_t(part.inputs) / 8;
  Values acc, inputs; // [pair][piece][half], [pair][eight inputs]
  Values parts = split(k, sums, 4);
  for (size_t p = 0; p < pairs; ++p) {
    for (int64_t piece = 0; piece < kPieces; ++piece)
      for (bool second : {false, true})
        acc.push_back(zip(k, parts[2 * p * kPieces + size_t(piece)],
                          parts[(2 * p + 1) * kPieces + size_t(piece)], second,
                          2));
    for (int64_t offset = 0; offset < part.inputs; offset += 16) {
      Value a = k.load(ints, rows[2 * p], offset);
      Value b = k.load(ints, rows[2 * p + 1], offset);
      for (bool second : {false, true})
        inputs.push_back(k.bitcast(bytes, zip(k, a, b, second, 2)));
    }
  }
  std::map<std::pair<int64_t, int64_t>, Value> evens; // by eight and piece
  forEachPiece(k, part, 16, [&](int64_t piece, Value w, int64_t quad) {
    Value own = k.bitcast(ints, w);
    if (quad % 2 == 0) {
      evens[{quad / 2, piece}] = own;
      return;
    }
    for (bool second : {false, true}) {
      Value weights =
          k.bitcast(bytes, zip(k, evens.at({quad / 2, piece}), own, second, 4));
      for (size_t p = 0; p < pairs; ++p) {
        Value &sum = acc[(p * kPieces + size_t(piece)) * 2 + second];
        sum =
            k.intrinsic("llvm.aarch64.neon.smmla", ints,
                        {sum, inputs[p * eights + size_t(quad / 2)], weights});
      }
    }
  });
  Values out;
  for (size_t p = 0; p < pairs; ++p)
    for (bool second : {false, true})
      for (size_t piece = 0; piece < kPieces; ++piece) {
        const size_t i = (p * kPieces + piece) * 2;
        out.push_back(zip(k, acc[i], acc[i + 1], second, 2));
      }
  return join(k, out);
}

/// What instruction sets without sums of several panels do: one after another.
template <typename Dot>
Values panelByPanel(const Values &blocks, size_t rows, const Values &sums,
                    Dot dot) {
  Values out;
  for (auto [p, block] : llvm::enumerate(blocks)) {
    auto first = sums.begin() + ptrdiff_t(p * rows);
    out.append(dot(block, Values(first, first + ptrdiff_t(rows))));
  }
  return out;
}

Values dotPortable(KernelBuilder &k, const Part &part, const Values &rows,
                   const Values &sums) {
  Values acc = sums;
  VectorType wide = k.vec(64, k.i32());
  auto extend = [&](Value v) {
    return arith::ExtSIOp::create(k.b, k.loc, wide, v);
  };
  forEachPiece(k, part, 64, [&](int64_t, Value w, int64_t quad) {
    for (auto [r, row] : llvm::enumerate(rows)) {
      Value products = arith::MulIOp::create(
          k.b, k.loc, extend(w), extend(broadcastQuad(k, row, quad, 64)));
      for (int64_t i = 0; i < 4; ++i) {
        SmallVector<int64_t> every4th;
        for (int64_t lane = 0; lane < kLanes; ++lane)
          every4th.push_back(4 * lane + i);
        acc[r] = k.add(acc[r], vector::ShuffleOp::create(k.b, k.loc, products,
                                                         products, every4th));
      }
    }
  });
  return acc;
}
} // namespace

Values isthmus::emitGroupDot(KernelBuilder &k, const PackedLayout &weight,
                             int64_t inputs, const Values &blocks,
                             const Values &rows, const Values &sums) {
  auto vnni = [&](int64_t bytes) {
    return dotVnni(k, weight, inputs, blocks, rows, sums, bytes);
  };
  auto by = [&](auto dot) {
    return panelByPanel(blocks, rows.size(), sums,
                        [&](Value block, const Values &own) {
                          return dot(k, {weight, inputs, block}, rows, own);
                        });
  };
  switch (k.target.dot) {
  case DotProduct::Avx2Madd:
    // The saturation of vpmaddubsw needs values within +-127.
    return by(weight.range == ByteRange::All ? dotAvx2Words : dotAvx2);
  case DotProduct::AvxVnni:
    return vnni(32);
  case DotProduct::Avx512Vnni:
  case DotProduct::Amx:
    return vnni(64);
  case DotProduct::NeonDot:
    return by(dotNeon);
  case DotProduct::NeonMatrix:
    return by(dotNeonMatrix);
  case DotProduct::Portable:
    return by(dotPortable);
  }
  llvm_unreachable("unknown dot product");
}

Values isthmus::emitLongDot(KernelBuilder &k, const PackedLayout &weight,
                            int64_t inputs, const Values &panels,
                            const Values &rows, const Values &sums,
                            const EachStep &eachStep) {
  if (usesTiles(k.target, weight.format, int64_t(rows.size()))) {
    constexpr int64_t kSumBytes = kLanes * 4;
    Value stored = k.stackBuffer(int64_t(sums.size()) * kSumBytes);
    emitLongTiles(k, inputs, panels, rows, stored, eachStep);
    Values out;
    for (auto [i, sum] : llvm::enumerate(sums))
      out.push_back(
          k.add(sum, k.load(sum.getType(), stored, int64_t(i) * kSumBytes)));
    return out;
  }
  auto step = [&](Value at, int64_t count, const Values &state) {
    Values blocks, values;
    eachStep(at, count);
    for (Value panel : panels)
      blocks.push_back(k.ptr(panel, k.mul(at, PackedLayout::kPanel)));
    for (Value row : rows)
      values.push_back(k.ptr(row, at));
    return emitGroupDot(k, weight, count, blocks, values, state);
  };
  const int64_t whole = inputs / kStep * kStep;
  Values out = sums;
  if (whole)
    out = k.loop(k.cst(0), k.cst(whole), kStep, out,
                 [&](Value at, ValueRange state) {
                   return step(at, kStep, Values(state));
                 });
  return whole < inputs ? step(k.cst(whole), inputs - whole, out) : out;
}

/// Whether pairs of int16 have a dot product of their own.
static bool hasWordDot(const TargetDescription &target) {
  switch (target.dot) {
  case DotProduct::Avx512Vnni:
  case DotProduct::Amx:
  case DotProduct::AvxVnni:
  case DotProduct::Avx2Madd:
    return true;
  case DotProduct::NeonDot:
  case DotProduct::NeonMatrix:
  case DotProduct::Portable:
    return false;
  }
  llvm_unreachable("unknown dot product");
}

bool isthmus::prefersNibbles(const TargetDescription &target) {
  // Sums of nibbles stay in 16 bits for a while, and have no signs to move.
  return target.dot == DotProduct::Avx2Madd;
}

void isthmus::emitUnpack(KernelBuilder &k, const PackedLayout &weight,
                         Value block, Value factors, Value to) {
  constexpr int64_t kBytes = 4 * kLanes; // of four inputs
  VectorType bytes = k.vec(kBytes, k.i8()), words = k.vec(kBytes / 2, k.i16());
  Value steps, firsts; // of the values of an output, four times each
  if (weight.oneScale) {
    VectorType ints = k.vec(kLanes, k.i32());
    Value pairs = emitSteppedFactors(k, factors);
    auto low = [&](Value v, int64_t bits) -> Value {
      return arith::AndIOp::create(k.b, k.loc, v,
                                   k.cst(ints, (int64_t(1) << bits) - 1));
    };
    auto times = [&](Value v, int64_t factor) -> Value {
      return arith::MulIOp::create(k.b, k.loc, v, k.cst(ints, factor));
    };
    Value step = low(pairs, 16);
    Value offset = arith::ShRUIOp::create(k.b, k.loc, pairs, k.cst(ints, 16));
    steps = k.bitcast(words, times(step, 0x10001));
    firsts = k.bitcast(
        bytes, times(low(k.add(offset, times(step, -8)), 8), 0x1010101));
  }
  forEachPiece(k, {weight, weight.group(), block}, kBytes,
               [&](int64_t, Value values, int64_t quad) {
                 if (steps) {
                   // (15 steps of 17 do not reach the upper byte of a word.)
                   Value product = arith::MulIOp::create(
                       k.b, k.loc, k.bitcast(words, values), steps);
                   values = k.add(k.bitcast(bytes, product), firsts);
                 }
                 k.store(values, to, quad * kBytes);
               });
}

Value isthmus::emitSteppedFactors(KernelBuilder &k, Value factors) {
  Value bytes = k.load(k.vec(2 * kLanes, k.i8()), factors);
  return k.bitcast(
      k.vec(kLanes, k.i32()),
      arith::ExtSIOp::create(k.b, k.loc, k.vec(2 * kLanes, k.i16()), bytes));
}

/// The second of each pair of int16.
static Value secondWord(KernelBuilder &k, Value pairs) {
  return arith::ShRSIOp::create(k.b, k.loc, pairs, k.cst(pairs.getType(), 16));
}

Value isthmus::emitSteppedStart(KernelBuilder &k, Value sums) {
  Type type = sums.getType();
  if (hasWordDot(k.target))
    return emitWordDot(k, sums, k.cst(type, 0xfff8), k.cst(type, 0));
  return arith::MulIOp::create(k.b, k.loc, secondWord(k, sums),
                               k.cst(type, -8));
}

Value isthmus::emitSteppedSum(KernelBuilder &k, Value dot, Value sums,
                              Value factors, Value total) {
  if (hasWordDot(k.target)) {
    VectorType words = k.vec(2 * kLanes, k.i16());
    SmallVector<int64_t> inTurn;
    for (int64_t i = 0; i < 2 * kLanes; ++i)
      inTurn.push_back(i % 2 ? 2 * kLanes + i : i);
    Value pairs = vector::ShuffleOp::create(k.b, k.loc, k.bitcast(words, dot),
                                            k.bitcast(words, sums), inTurn);
    return emitWordDot(k, k.bitcast(dot.getType(), pairs), factors, total);
  }
  auto times = [&](Value a, Value b) -> Value {
    return arith::MulIOp::create(k.b, k.loc, a, b);
  };
  Value steps =
      secondWord(k, arith::ShLIOp::create(k.b, k.loc, factors,
                                          k.cst(factors.getType(), 16)));
  total = k.add(total, times(dot, steps));
  return k.add(total, times(secondWord(k, sums), secondWord(k, factors)));
}

Value isthmus::emitDotStart(KernelBuilder &k, const PackedLayout &weight,
                            size_t rows,
                            llvm::function_ref<Value()> correction) {
  // What is added to weights.
  auto added = [&]() -> int64_t {
    switch (k.target.dot) {
    case DotProduct::AvxVnni:
    case DotProduct::Avx512Vnni:
      return 128;
    case DotProduct::Amx:
      return usesTiles(k.target, weight.format, int64_t(rows)) ? 0 : 128;
    case DotProduct::Avx2Madd:
      return weight.range == ByteRange::SevenBits ? weight.largest() : 0;
    case DotProduct::NeonDot:
    case DotProduct::NeonMatrix:
    case DotProduct::Portable:
      return 0;
    }
    llvm_unreachable("unknown dot product");
  };
  const int64_t value = hasNibbles(weight.format) ? 0 : added();
  if (value == 0)
    return k.cst(k.vec(kLanes, k.i32()), 0);
  if (value == 128)
    return k.splat(correction(), kLanes);
  // (Else LLVM would shift scalars, which are not where they are needed.)
  Value whole = k.inOrder(k.splat(correction(), kLanes / 2));
  Value half =
      arith::ShRSIOp::create(k.b, k.loc, whole, k.cst(whole.getType(), 1));
  return k.concat(half, half);
}

/// The second value of each pair as f32.
static Value secondOf(KernelBuilder &k, Value pairs) {
  Value bits =
      arith::AndIOp::create(k.b, k.loc, pairs, k.cst(pairs.getType(), -65536));
  return k.bitcast(k.vec(kLanes, k.f32()), bits);
}

Value isthmus::emitPairDot(KernelBuilder &k, Value first, Value second, Value y,
                           Value sum) {
  return k.fma(first, k.fromBF16(y), k.fma(second, secondOf(k, y), sum));
}

Value isthmus::emitPairDot(KernelBuilder &k, Value x, Value y, Value sum) {
  switch (k.target.pairDot) {
  case PairDot::Avx512BF16: {
    VectorType pairs = k.vec(2 * kLanes, k.b.getBF16Type());
    return k.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", sum.getType(),
                       {sum, k.bitcast(pairs, x), k.bitcast(pairs, y)});
  }
  case PairDot::TwoFmas:
    return emitPairDot(k, k.fromBF16(x), secondOf(k, x), y, sum);
  }
  llvm_unreachable("unknown pair dot");
}

Value isthmus::emitWordDot(KernelBuilder &k, Value x, Value y, Value sum) {
  /// Calls `dot(x, y, sum)` for registers of `lanes` lanes.
  auto inRegisters = [&](int64_t lanes, auto dot) {
    Values xs = split(k, {x}, lanes), ys = split(k, {y}, lanes),
           sums = split(k, {sum}, lanes);
    VectorType words = k.vec(2 * lanes, k.i16());
    for (size_t i = 0; i < sums.size(); ++i)
      sums[i] = dot(k.bitcast(words, xs[i]), k.bitcast(words, ys[i]), sums[i]);
    return join(k, sums)[0];
  };
  auto vnni = [&](int64_t lanes) {
    std::string name = "llvm.x86.avx512.vpdpwssd." + std::to_string(lanes * 32);
    return inRegisters(lanes, [&](Value a, Value b, Value s) {
      return k.intrinsic(name, s.getType(), {s, a, b});
    });
  };
  switch (k.target.dot) {
  case DotProduct::Avx512Vnni:
  case DotProduct::Amx:
    return vnni(16);
  case DotProduct::AvxVnni:
    return vnni(8);
  case DotProduct::Avx2Madd:
    return inRegisters(8, [&](Value a, Value b, Value s) {
      return k.add(s,
                   k.intrinsic("llvm.x86.avx2.pmadd.wd", s.getType(), {a, b}));
    });
  case DotProduct::NeonDot:
  case DotProduct::NeonMatrix:
  case DotProduct::Portable:
    break;
  }
  Value bits = k.cst(x.getType(), 16);
  auto product = [&](Value a, Value b) {
    auto signExtend = [&](Value v) {
      return arith::ShRSIOp::create(k.b, k.loc, v, bits);
    };
    return arith::MulIOp::create(k.b, k.loc, signExtend(a), signExtend(b));
  };
  auto low = [&](Value v) {
    return arith::ShLIOp::create(k.b, k.loc, v, bits);
  };
  return k.add(k.add(sum, product(low(x), low(y))), product(x, y));
}
