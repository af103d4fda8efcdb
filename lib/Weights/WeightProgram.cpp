//===- WeightProgram.cpp - executes the region of an fm.param -------------===//
#include "isthmus/Weights/WeightProgram.h"

#include "isthmus/Weights/RowOps.h"

#include <cstring>
#include <thread>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::weights;

const rt::MappedFile &Sources::open(const std::string &path) {
  auto it = files.find(path);
  if (it == files.end())
    it = files.emplace(path, rt::MappedFile(path)).first;
  return it->second;
}

using RowOp = std::function<void(std::span<float>)>;

/// What an operator does to each row, if it does anything to it alone.
static RowOp rowOpOf(Operation &op) {
  if (auto add = dyn_cast<fm::AddConstantOp>(op))
    return [constant = float(add.getConstant().convertToDouble())](
               std::span<float> row) {
      for (float &value : row)
        value += constant;
    };
  if (auto prune = dyn_cast<fm::PruneOp>(op)) {
    if (prune.getPattern() == "2:4")
      return prune2of4;
    return [sparsity = prune.getSparsity().convertToDouble()](
               std::span<float> row) { pruneUnstructured(row, sparsity); };
  }
  return {};
}

/// Whether a file's values have at most sixteen levels in a group.
static bool isFourBits(fm::SourceOp source) {
  const StringRef dtype = source.getDtype();
  return dtype == "u4" || dtype == "i4" || dtype == "q4_0" || dtype == "q4_1";
}

/// Reads a tensor of a file row by row.
static WeightProgram::Stage readRows(const rt::MappedFile &file,
                                     fm::SourceOp source,
                                     const std::string &name) {
  const import::DType dtype = *import::parseDType(source.getDtype().str());
  const import::BlockSize block = import::blockSizeOf(dtype);
  ArrayRef<int64_t> stored = source.getResult().getType().getShape();
  const uint64_t rowBytes =
      uint64_t(stored.back()) / block.values * block.bytes;
  const uint64_t rows = stored.size() == 2 ? uint64_t(stored[0]) : 1;
  const auto offset = uint64_t(source.getOffset());
  const std::byte *data = file.slice(offset, rowBytes * rows, name).data();
  return {[=](int64_t row, std::span<float> out) {
            dequantize(dtype, data + uint64_t(row) * rowBytes, out);
          },
          [&file, offset, rowBytes](int64_t first, int64_t count) {
            file.release(offset + uint64_t(first) * rowBytes,
                         uint64_t(count) * rowBytes);
          },
          [=](int64_t row) { return data + uint64_t(row) * rowBytes; }};
}

/// The same column by column.
static FailureOr<WeightProgram::Stage> readColumns(const rt::MappedFile &file,
                                                   fm::SourceOp source,
                                                   const std::string &name) {
  const import::DType dtype = *import::parseDType(source.getDtype().str());
  const import::BlockSize block = import::blockSizeOf(dtype);
  ArrayRef<int64_t> stored = source.getResult().getType().getShape();
  const bool nibbles = dtype == import::DType::U4 || dtype == import::DType::I4;
  if (block.values != 1 && !nibbles)
    return source.emitError("stores blocks, which cannot be transposed");
  const uint64_t rowBytes =
      uint64_t(stored.back()) / block.values * block.bytes;
  const auto offset = uint64_t(source.getOffset());
  const uint64_t bytes = rowBytes * uint64_t(stored[0]);
  const std::byte *data = file.slice(offset, bytes, name).data();
  auto read = [=](int64_t row, std::span<float> out) {
    const std::byte *from = data + uint64_t(row) / block.values * block.bytes;
    std::vector<std::byte> column(out.size() * block.bytes);
    for (size_t i = 0; i < out.size(); ++i)
      std::memcpy(&column[i * block.bytes], from + i * rowBytes, block.bytes);
    if (!nibbles)
      return dequantize(dtype, column.data(), out);
    std::vector<float> pairs(2 * out.size());
    dequantize(dtype, column.data(), pairs);
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = pairs[2 * i + size_t(row % 2)];
  };
  // Every row of the result touches every page.
  auto release = [&file, offset, bytes, last = stored.back()](int64_t first,
                                                              int64_t count) {
    if (first + count == last)
      file.release(offset, bytes);
  };
  return WeightProgram::Stage{read, release, {}};
}

static WeightProgram::Stage unpermute(const WeightProgram::Stage &inner,
                                      int64_t outputs, int64_t heads,
                                      bool matrix) {
  const int64_t half = outputs / heads / 2;
  auto sourceIndex = [half](int64_t row) {
    int64_t head = row / (2 * half), inHead = row % (2 * half);
    return head * 2 * half + inHead % half * 2 + inHead / half;
  };
  if (matrix)
    return {[=, read = inner.read](int64_t row, std::span<float> out) {
              read(sourceIndex(row), out);
            },
            inner.release,
            [=, stored = inner.stored](int64_t row) {
              return stored(sourceIndex(row));
            }};
  return {[=, read = inner.read](int64_t, std::span<float> out) {
            std::vector<float> values(out.size());
            read(0, values);
            for (size_t i = 0; i < out.size(); ++i)
              out[i] = values[size_t(sourceIndex(int64_t(i)))];
          },
          inner.release,
          {}};
}

static WeightProgram::Stage slice(const WeightProgram::Stage &inner,
                                  ArrayRef<int64_t> whole, int64_t first) {
  if (whole.size() == 2)
    return {[=, read = inner.read](int64_t row, std::span<float> out) {
              read(first + row, out);
            },
            [=, release = inner.release](int64_t row, int64_t count) {
              release(first + row, count);
            },
            [=, stored = inner.stored](int64_t row) {
              return stored(first + row);
            }};
  return {
      [=, read = inner.read, size = whole[0]](int64_t, std::span<float> out) {
        std::vector<float> values(static_cast<size_t>(size));
        read(0, values);
        std::copy_n(values.begin() + first, out.size(), out.begin());
      },
      inner.release,
      {}};
}

static WeightProgram::Stage
dequantizeLinear(fm::DequantizeOp op, const WeightProgram::Stage &values,
                 const WeightProgram::Stage &scales,
                 const std::optional<WeightProgram::Stage> &zeros) {
  ArrayRef<int64_t> shape = op.getScales().getType().getShape();
  const bool matrix = op.getResult().getType().getShape().size() == 2;
  const bool blocks = shape.size() == 2;
  // Of a vector of scales a matrix takes one a row, a vector one a value.
  const auto count = size_t(shape.back());
  auto parameters = [=](const WeightProgram::Stage &stage, int64_t row) {
    std::vector<float> all(count);
    stage.read(blocks ? row : 0, all);
    if (matrix && !blocks)
      return std::vector<float>{all[count == 1 ? 0 : size_t(row)]};
    return all;
  };
  return {[=](int64_t row, std::span<float> out) {
            values.read(row, out);
            const std::vector<float> scale = parameters(scales, row);
            const std::vector<float> zero =
                zeros ? parameters(*zeros, row)
                      : std::vector<float>(scale.size(), 0.0f);
            const size_t block = out.size() / scale.size();
            for (size_t i = 0; i < out.size(); ++i)
              out[i] = (out[i] - zero[i / block]) * scale[i / block];
          },
          values.release,
          {}};
}

FailureOr<WeightProgram> WeightProgram::build(fm::ParamOp param,
                                              Sources &sources) {
  WeightProgram program;
  fm::WeightType type = param.getWeightType();
  bool matrix = type.getShape().size() == 2;
  program.packed = type.getPackedLayout();
  program.rows = matrix ? type.getShape()[0] : 1;
  program.width = type.getShape().back();
  const int64_t width = program.width;
  const std::string name = param.getSymName().str();
  llvm::DenseMap<Value, Stage> stages;
  auto nothing = [](int64_t, int64_t) {};

  for (Operation &op : param.getBody().front()) {
    Stage stage;
    if (auto source = dyn_cast<fm::SourceOp>(op)) {
      if (source.getFile() == "<seed>")
        stage = {[seed = uint64_t(source.getOffset()), width,
                  inputs = program.packed.inputs](int64_t row,
                                                  std::span<float> out) {
                   generate(seed, uint64_t(row * width), inputs, out);
                 },
                 nothing,
                 {}};
      else
        stage = readRows(sources.open(source.getFile().str()), source, name);
      program.onGrid |= isFourBits(source);
    } else if (auto transpose = dyn_cast<fm::TransposeOp>(op)) {
      auto source = transpose.getSource().getDefiningOp<fm::SourceOp>();
      if (!source)
        return op.emitError("transposes what is computed, and only what a "
                            "file holds can be");
      auto columns =
          readColumns(sources.open(source.getFile().str()), source, name);
      if (failed(columns))
        return failure();
      stage = *columns;
    } else if (auto literal = dyn_cast<fm::LiteralOp>(op)) {
      stage = {[values = literal.getValues().vec()](int64_t row,
                                                    std::span<float> out) {
                 std::copy_n(values.begin() + row * int64_t(out.size()),
                             out.size(), out.begin());
               },
               nothing,
               {}};
    } else if (auto dequantized = dyn_cast<fm::DequantizeOp>(op)) {
      std::optional<Stage> zeros;
      if (dequantized.getZeros())
        zeros = stages.at(dequantized.getZeros());
      stage = dequantizeLinear(dequantized, stages.at(dequantized.getValues()),
                               stages.at(dequantized.getScales()), zeros);
    } else if (auto turned = dyn_cast<fm::UnpermuteRowsOp>(op)) {
      stage = unpermute(stages.at(turned.getSource()), type.getShape()[0],
                        turned.getHeads(), matrix);
    } else if (auto part = dyn_cast<fm::SliceRowsOp>(op)) {
      stage = slice(stages.at(part.getSource()),
                    part.getSource().getType().getShape(), part.getFirst());
    } else if (auto yield = dyn_cast<fm::YieldOp>(op)) {
      program.result = stages.at(yield.getValue());
      continue;
    } else if (isa<fm::AddConstantOp, fm::PruneOp, fm::QuantizeOp>(op)) {
      stage = stages.at(op.getOperand(0));
      // Rounding to the stored format is part of packing.
      if (RowOp rowOp = rowOpOf(op))
        stage.read = [read = stage.read, rowOp](int64_t row,
                                                std::span<float> out) {
          read(row, out);
          rowOp(out);
        };
    } else {
      return op.emitError("is not a weight operator that can be executed");
    }
    stages[op.getResult(0)] = std::move(stage);
  }
  return program;
}

void WeightProgram::computeRow(int64_t row, std::span<float> out) const {
  result.read(row, out);
}

void WeightProgram::run(
    unsigned threads,
    const std::function<void(std::span<const std::byte>)> &write) const {
  if (packed.inputs == 0) {
    std::vector<float> values(size_t(packed.panels() * PackedLayout::kPanel));
    computeRow(0, std::span(values).first(size_t(width)));
    write(std::as_bytes(std::span(values)));
    return;
  }
  // A batch is what is in memory at once: a few panels a thread, about 8 MB.
  const int64_t panelFloats = PackedLayout::kPanel * width;
  const int64_t perThread =
      std::clamp<int64_t>((int64_t(1) << 20) / panelFloats, 1, 64);
  const int64_t batch = perThread * int64_t(threads);
  const size_t panelBytes = size_t(packed.panelBytes());
  std::vector<std::byte> out(size_t(batch) * panelBytes);
  for (int64_t first = 0; first < packed.panels(); first += batch) {
    int64_t last = std::min(first + batch, packed.panels());
    auto work = [&](int64_t from, int64_t to) {
      std::vector<float> values(static_cast<size_t>(panelFloats));
      const float *rowPointers[PackedLayout::kPanel];
      const std::byte *blockPointers[PackedLayout::kPanel];
      for (int64_t panel = from; panel < to; ++panel) {
        int64_t row = panel * PackedLayout::kPanel;
        auto count = size_t(std::min(PackedLayout::kPanel, rows - row));
        std::byte *place = out.data() + size_t(panel - first) * panelBytes;
        if (isBlocks(packed.format)) {
          for (size_t i = 0; i < count; ++i)
            blockPointers[i] = result.stored(row + int64_t(i));
          packBlocks(packed, std::span(blockPointers, count), place);
          continue;
        }
        for (size_t i = 0; i < count; ++i) {
          auto own =
              std::span(values).subspan(i * size_t(width), size_t(width));
          computeRow(row + int64_t(i), own);
          rowPointers[i] = own.data();
        }
        packPanel(packed, std::span(rowPointers, count), place, onGrid);
      }
    };
    {
      std::vector<std::jthread> helpers;
      for (int64_t from = first + perThread; from < last; from += perThread)
        helpers.emplace_back(work, from, std::min(from + perThread, last));
      work(first, std::min(first + perThread, last));
    }
    write(std::span(out).first(size_t(last - first) * panelBytes));
    int64_t firstRow = first * PackedLayout::kPanel;
    result.release(firstRow,
                   std::min(last * PackedLayout::kPanel, rows) - firstRow);
  }
}
