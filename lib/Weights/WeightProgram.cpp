//===- WeightProgram.cpp - executes the region of an fm.param -------------===//
#include "isthmus/Weights/WeightProgram.h"

#include "isthmus/Weights/RowOps.h"

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

FailureOr<WeightProgram> WeightProgram::build(fm::ParamOp param,
                                              Sources &sources) {
  WeightProgram program;
  fm::WeightType type = param.getWeightType();
  bool matrix = type.getShape().size() == 2;
  program.packed = {static_cast<PackedFormat>(type.getFormat()),
                    type.getShape()[0], matrix ? type.getShape()[1] : 0};
  program.rows = matrix ? type.getShape()[0] : 1;
  program.width = type.getShape().back();
  const int64_t width = program.width;

  for (Operation &op : param.getBody().front()) {
    if (auto source = dyn_cast<fm::SourceOp>(op)) {
      if (source.getFile() == "<seed>") {
        program.source = [seed = uint64_t(source.getOffset()), width,
                          inputs = program.packed.inputs](
                             int64_t row, std::span<float> out) {
          generate(seed, uint64_t(row * width), inputs, out);
        };
        program.release = [](int64_t, int64_t) {};
        continue;
      }
      const rt::MappedFile &file = sources.open(source.getFile().str());
      import::DType dtype = *import::parseDType(source.getDtype().str());
      import::BlockSize block = import::blockSizeOf(dtype);
      ArrayRef<int64_t> stored = source.getResult().getType().getShape();
      uint64_t rowBytes = uint64_t(stored.back()) / block.values * block.bytes;
      uint64_t storedRows = stored.size() == 2 ? uint64_t(stored[0]) : 1;
      uint64_t offset = uint64_t(source.getOffset());
      const std::byte *data =
          file.slice(offset, rowBytes * storedRows, param.getSymName().str())
              .data();
      if (llvm::any_of(source->getUsers(), llvm::IsaPred<fm::TransposeOp>)) {
        if (block.values != 1)
          return source.emitError("stores blocks, which cannot be transposed");
        program.source = [=](int64_t row, std::span<float> out) {
          const std::byte *from = data + uint64_t(row) * block.bytes;
          for (size_t i = 0; i < out.size(); ++i)
            dequantize(dtype, from + i * rowBytes, out.subspan(i, 1));
        };
        // Every row of the result touches every page.
        program.release = [&file, offset, bytes = rowBytes * storedRows,
                           last = stored.back()](int64_t first, int64_t count) {
          if (first + count == last)
            file.release(offset, bytes);
        };
        continue;
      }
      program.source = [=](int64_t row, std::span<float> out) {
        dequantize(dtype, data + uint64_t(row) * rowBytes, out);
      };
      program.release = [&file, offset, rowBytes](int64_t first,
                                                  int64_t count) {
        file.release(offset + uint64_t(first) * rowBytes,
                     uint64_t(count) * rowBytes);
      };
    } else if (auto unpermute = dyn_cast<fm::UnpermuteRowsOp>(op)) {
      int64_t outputs = type.getShape()[0];
      int64_t half = outputs / unpermute.getHeads() / 2;
      auto sourceIndex = [half](int64_t row) {
        int64_t head = row / (2 * half), inHead = row % (2 * half);
        return head * 2 * half + inHead % half * 2 + inHead / half;
      };
      auto inner = program.source;
      if (matrix) {
        program.source = [=](int64_t row, std::span<float> out) {
          inner(sourceIndex(row), out);
        };
      } else {
        program.source = [=](int64_t, std::span<float> out) {
          std::vector<float> values(out.size());
          inner(0, values);
          for (size_t i = 0; i < out.size(); ++i)
            out[i] = values[size_t(sourceIndex(int64_t(i)))];
        };
      }
    } else if (auto slice = dyn_cast<fm::SliceRowsOp>(op)) {
      auto inner = program.source;
      const int64_t first = slice.getFirst();
      if (matrix) {
        program.source = [=](int64_t row, std::span<float> out) {
          inner(first + row, out);
        };
        program.release = [release = program.release, first](int64_t row,
                                                             int64_t count) {
          release(first + row, count);
        };
      } else {
        const int64_t whole = slice.getSource().getType().getShape()[0];
        program.source = [=](int64_t, std::span<float> out) {
          std::vector<float> values(static_cast<size_t>(whole));
          inner(0, values);
          std::copy_n(values.begin() + first, out.size(), out.begin());
        };
      }
    } else if (auto add = dyn_cast<fm::AddConstantOp>(op)) {
      program.rowOps.push_back(
          [constant = float(add.getConstant().convertToDouble())](
              std::span<float> row) {
            for (float &value : row)
              value += constant;
          });
    } else if (auto prune = dyn_cast<fm::PruneOp>(op)) {
      if (prune.getPattern() == "2:4")
        program.rowOps.push_back(prune2of4);
      else
        program.rowOps.push_back(
            [sparsity = prune.getSparsity().convertToDouble()](
                std::span<float> row) { pruneUnstructured(row, sparsity); });
    } else if (!isa<fm::TransposeOp, fm::QuantizeOp, fm::YieldOp>(op)) {
      // Rounding to the stored format is part of packing.
      return op.emitError("is not a weight operator that can be executed");
    }
  }
  if (!program.source)
    return param.emitError("weight program has no fm.source");
  return program;
}

void WeightProgram::computeRow(int64_t row, std::span<float> out) const {
  source(row, out);
  for (const RowOp &op : rowOps)
    op(out);
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
      for (int64_t panel = from; panel < to; ++panel) {
        int64_t row = panel * PackedLayout::kPanel;
        auto count = size_t(std::min(PackedLayout::kPanel, rows - row));
        for (size_t i = 0; i < count; ++i) {
          auto place =
              std::span(values).subspan(i * size_t(width), size_t(width));
          computeRow(row + int64_t(i), place);
          rowPointers[i] = place.data();
        }
        packPanel(packed, std::span(rowPointers, count),
                  out.data() + size_t(panel - first) * panelBytes);
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
    release(firstRow, std::min(last * PackedLayout::kPanel, rows) - firstRow);
  }
}
