//===- OnnxFile.cpp - cuts large initializers out of an ONNX file ---------===//
//
// protobuf.dev/programming-guides/encoding; field numbers are those of
// onnx.proto.
//
//===----------------------------------------------------------------------===//
#include "OnnxFile.h"

#include "isthmus/runtime/Error.h"

using namespace isthmus;
using namespace isthmus::import;
using rt::Error;

namespace {
constexpr uint64_t kModelGraph = 7, kGraphInitializer = 5, kTensorRawData = 9;

/// One field of a message: where it and its contents are, in the file.
struct Field {
  uint64_t number, begin, contents, end;
  bool delimited;
};

class Reader {
public:
  Reader(const std::string &where, std::span<const std::byte> file)
      : where(where), file(file) {}

  /// Calls `use` with each field of the message in [begin, end).
  template <typename Use> void fields(uint64_t begin, uint64_t end, Use use) {
    uint64_t at = begin;
    while (at < end) {
      Field field{};
      field.begin = at;
      const uint64_t tag = varint(at, end);
      field.number = tag >> 3;
      uint64_t length = 0;
      switch (tag & 7) {
      case 0:
        varint(at, end);
        break;
      case 1:
        length = 8;
        break;
      case 2:
        length = varint(at, end);
        field.delimited = true;
        break;
      case 5:
        length = 4;
        break;
      default:
        fail(field.begin, "a field of an unknown kind");
      }
      if (length > end - at)
        fail(field.begin, "a field that reaches beyond its message");
      field.contents = at;
      field.end = at += length;
      use(field);
    }
  }

  std::string copy(uint64_t begin, uint64_t end) const {
    return {reinterpret_cast<const char *>(file.data()) + begin, end - begin};
  }

private:
  const std::string &where;
  std::span<const std::byte> file;

  [[noreturn]] void fail(uint64_t at, const char *what) const {
    throw Error("{}: not an ONNX model: {} at byte {}", where, what, at);
  }

  uint64_t varint(uint64_t &at, uint64_t end) const {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (at >= end)
        fail(at, "a number that does not end");
      const auto byte = uint64_t(file[at++]);
      value |= (byte & 0x7f) << shift;
      if (!(byte & 0x80))
        return value;
    }
    fail(at, "a number of more than 64 bits");
  }
};

void appendDelimited(std::string &out, uint64_t number,
                     const std::string &contents) {
  auto varint = [&](uint64_t value) {
    for (; value >= 0x80; value >>= 7)
      out += char(value | 0x80);
    out += char(value);
  };
  varint(number << 3 | 2);
  varint(contents.size());
  out += contents;
}
} // namespace

CutFile isthmus::import::cutInitializers(const std::string &where,
                                         std::span<const std::byte> file,
                                         uint64_t least) {
  Reader reader(where, file);
  CutFile result;
  // True if the tensor's values were cut out.
  auto cut = [&](const Field &tensor) {
    if (tensor.end - tensor.contents < least)
      return false;
    CutFile::Cut piece{};
    reader.fields(tensor.contents, tensor.end, [&](const Field &field) {
      const bool values = field.number == kTensorRawData && field.delimited;
      if (values) {
        piece.offset = field.contents;
        piece.bytes = field.end - field.contents;
      } else {
        piece.tensor += reader.copy(field.begin, field.end);
      }
    });
    if (piece.bytes < least)
      return false;
    result.cuts.push_back(std::move(piece));
    return true;
  };
  reader.fields(0, file.size(), [&](const Field &field) {
    if (field.number != kModelGraph || !field.delimited) {
      result.model += reader.copy(field.begin, field.end);
      return;
    }
    std::string graph;
    reader.fields(field.contents, field.end, [&](const Field &part) {
      if (part.number != kGraphInitializer || !part.delimited || !cut(part))
        graph += reader.copy(part.begin, part.end);
    });
    appendDelimited(result.model, kModelGraph, graph);
  });
  return result;
}
