//===- Passes.td - passes over the fm dialect ---------------*- tablegen -*-===//
#ifndef ISTHMUS_DIALECT_FM_TRANSFORMS_PASSES_TD
#define ISTHMUS_DIALECT_FM_TRANSFORMS_PASSES_TD

include "mlir/Pass/PassBase.td"

def QuantizeWeights : Pass<"fm-quantize-weights", "::mlir::ModuleOp"> {
  let summary = "Store matrices in f16, bf16, int8 or int4, or as their file has them";
  let description = [{
    Appends `fm.quantize` to the weight program of every matrix that a block uses
    in `fm.linear` or `fm.embedding`, retypes the blocks, and puts
    `fm.quantize_rows` before each product whose weight became an integer or bf16 one.

    With int4, tables that `fm.embedding` reads and the matrix of the output head
    are kept in int8: they are the tensors whose error shows most in the logits.
    Groups have 64 values where that divides the inputs, else 32; of int4 weights
    always 32. With `scales=row` a weight has a scale for each output and the
    rows that it multiplies one each: their products are sums of integers alone, but
    one outlier coarsens a whole row. Groups of int4 then have steps and offsets in whole
    multiples of that scale.

    With `format=file` each matrix keeps the values that its file has, f32, f16, bf16, or blocks of
    GGUF. Layers whose formats differ get a block each.

    ```mlir
    %y = fm.linear %x, %w : tensor<?x64xf32>, !fm.weight<[32, 64], f32> -> tensor<?x32xf32>
    // becomes
    %q = fm.quantize_rows %x : tensor<?x64xf32> -> !fm.qrows<64, group = 64>
    %y = fm.linear %q, %w : !fm.qrows<64, group = 64>, !fm.weight<[32, 64], int4, group = 32> -> tensor<?x32xf32>
    ```
  }];
  let options = [
    Option<"format", "format", "std::string", "\"int8\"", "f16, bf16, int8, int7, int4 or file">,
    Option<"scales", "scales", "std::string", "\"group\"", "of integers: group or row">
  ];
  let statistics = [Statistic<"numQuantized", "quantized", "parameters quantised">];
}

def SplitRows : Pass<"fm-split-rows", "::mlir::ModuleOp"> {
  let summary = "Multiply floats in a matrix unit of bf16";
  let description = [{
    Puts `fm.quantize_rows` to three parts of bf16 before each product with an f32
    weight that has a multiple of 32 inputs, unless few rows were chosen before: six
    products for one, and less time for all of them. The result is as exact as with
    f32 (docs/numerics.md), and differs in its last bits. Before one with a bf16 weight
    rows are rounded to one part.

    ```mlir
    %y = fm.linear %x, %w : tensor<?x64xf32>, !fm.weight<[32, 64], f32> -> tensor<?x32xf32>
    // becomes
    %p = fm.quantize_rows %x : tensor<?x64xf32> -> tensor<?x3x64xbf16>
    %y = fm.linear %p, %w : tensor<?x3x64xbf16>, !fm.weight<[32, 64], f32> -> tensor<?x32xf32>

    %p = fm.quantize_rows %x : tensor<?x64xf32> -> tensor<?x64xbf16>
    %y = fm.linear %p, %w : tensor<?x64xbf16>, !fm.weight<[32, 64], bf16> -> tensor<?x32xf32>
    // becomes
    %p = fm.quantize_rows %x : tensor<?x64xf32> -> tensor<?x1x64xbf16>
    %y = fm.linear %p, %w : tensor<?x1x64xbf16>, !fm.weight<[32, 64], bf16> -> tensor<?x32xf32>
    ```
  }];
  let options = [
    Option<"leastImageRows", "least-image-rows", "int64_t", "0",
           "if not 0, only in blocks of programs that take images of as many rows">
  ];
  let statistics = [Statistic<"numSplit", "split", "rows split">];
}

def PruneWeights : Pass<"fm-prune-weights", "::mlir::ModuleOp"> {
  let summary = "Set the weights of least magnitude to zero";
  let description = [{
    Appends `fm.prune` to the weight program of every matrix used by `fm.linear` in
    a block that keeps state (a decoder layer); embedding and head stay whole.
    Magnitude pruning without data or fine-tuning: see what it costs with
    `isthmus eval`.
  }];
  let options = [
    Option<"pattern", "pattern", "std::string", "\"2:4\"", "2:4 or unstructured">,
    Option<"sparsity", "sparsity", "double", "0.5", "fraction pruned by 'unstructured'">
  ];
  let statistics = [Statistic<"numPruned", "pruned", "parameters pruned">];
}

def SetKVFormat : Pass<"fm-set-kv-format", "::mlir::ModuleOp"> {
  let summary = "Store keys and values of the cache as f32, f16, bf16 or int8";
  let description = [{
    Sets `kv_format` of every `fm.attention`. f16 and bf16 halve the cache and what a
    token reads of it; sums stay f32. With bf16 queries and probabilities are rounded
    as well, and a processor that multiplies pairs of bf16 does so. int8 takes about a
    quarter of f32, with a scale for each key and each value of a head. Programs
    that do not generate, whose cache lasts for a step, may have a format of their own.
  }];
  let options = [
    Option<"format", "format", "std::string", "\"f16\"", "f32, f16, bf16 or int8">,
    Option<"encoders", "encoders", "std::string", "\"\"",
           "the same, of programs that do not generate (default: no other)">
  ];
}

def TileAttention : Pass<"fm-tile-attention", "::mlir::ModuleOp"> {
  let summary = "Attend in a matrix unit of bf16";
  let description = [{
    Marks every `fm.attention` with a bf16 cache whose heads fit tiles as `in_tiles`. The
    result is as exact, and differs in its last bits (docs/numerics.md).
  }];
  let statistics = [Statistic<"numTiled", "tiled", "attentions in tiles">];
}

def LimitKV : Pass<"fm-limit-kv", "::mlir::ModuleOp"> {
  let summary = "Attend to the first positions and a window only";
  let description = [{
    Gives every `fm.attention` a budget of cached positions: `sinks` positions from
    the beginning and a window over the last `budget - sinks` (attention sinks,
    arXiv:2309.17453). An attention whose own window is within the budget keeps it.
  }];
  let options = [
    Option<"budget", "budget", "int64_t", "0", "cached positions a sequence may use">,
    Option<"sinks", "sinks", "int64_t", "4", "positions kept from the beginning">
  ];
}

#endif
