//===- FMOps.td - operators of the fm dialect ---------------*- tablegen -*-===//
#ifndef ISTHMUS_DIALECT_FM_IR_FMOPS_TD
#define ISTHMUS_DIALECT_FM_IR_FMOPS_TD

include "isthmus/Dialect/FM/IR/FMDialect.td"
include "mlir/Interfaces/FunctionInterfaces.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "mlir/IR/SymbolInterfaces.td"

class FM_Op<string opMnemonic, list<Trait> traits = []> : Op<FM_Dialect, opMnemonic, traits>;

def FM_Float : 2DTensorOf<[F32]>;
// tensor<?x3xNxbf16>: three parts of each of N features, whose sum it is.
def FM_Rounded : AnyTypeOf<[2DTensorOf<[BF16]>, 3DTensorOf<[BF16]>, FM_QRowsType],
    "rows of bf16, of three bf16 parts or of grouped int8">;
def FM_Activation : AnyTypeOf<[2DTensorOf<[F32, BF16]>, 3DTensorOf<[BF16]>, FM_QRowsType],
    "rows of f32, of bf16, of three bf16 parts or of grouped int8">;

//===----------------------------------------------------------------------===//
// Module level
//===----------------------------------------------------------------------===//

class FM_FunctionLike<string opMnemonic, list<Trait> traits = []> : FM_Op<opMnemonic,
    !listconcat([Symbol, FunctionOpInterface, IsolatedFromAbove,
                 SingleBlock], traits)> {
  let arguments = (ins SymbolNameAttr:$sym_name,
                       TypeAttrOf<FunctionType>:$function_type,
                       OptionalAttr<DictArrayAttr>:$arg_attrs,
                       OptionalAttr<DictArrayAttr>:$res_attrs);
  let regions = (region AnyRegion:$body);
  let hasCustomAssemblyFormat = 1;
  let extraClassDeclaration = [{
    ::llvm::ArrayRef<::mlir::Type> getArgumentTypes() { return getFunctionType().getInputs(); }
    ::llvm::ArrayRef<::mlir::Type> getResultTypes() { return getFunctionType().getResults(); }
    ::mlir::Region *getCallableRegion() { return &getBody(); }
  }];
}

def FM_BlockOp : FM_FunctionLike<"block"> {
  let summary = "one kind of block of a model";
  let description = [{
    Arguments come in this order: activations, `!fm.rows`, `!fm.state` (if the
    block keeps state), then `!fm.weight`s. Calls bind the weights to parameters,
    so that all layers of one kind share the block and, later, its kernels.
  }];
}

def FM_ProgramOp : FM_FunctionLike<"program"> {
  let summary = "a chain of block calls: what one step of the model computes";
  let description = [{
    A model may have several programs (towers, a draft model, an embedder). The
    attributes that a runtime needs (`fm.context_length`, `fm.vocab_size`) stand on
    the operation.
  }];
}

def FM_ReturnOp : FM_Op<"return", [Pure, Terminator, ParentOneOf<["BlockOp", "ProgramOp"]>]> {
  let summary = "ends a block or a program";
  let arguments = (ins Variadic<AnyType>:$operands);
  let assemblyFormat = "($operands^ `:` type($operands))? attr-dict";
  let hasVerifier = 1;
}

def FM_CallOp : FM_Op<"call", [DeclareOpInterfaceMethods<SymbolUserOpInterface>]> {
  let summary = "runs a block with given parameters and state";
  let description = [{
    ```mlir
    %2 = fm.call @layer(%1, %rows) state 0 params [@l0.norm, @l0.q] on @board
        : (tensor<?x576xf32>, !fm.rows) -> tensor<?x576xf32>
    ```
    `state` numbers the layer's state (its KV cache). `on` is set by the
    partitioner: the `topo.device` that runs the call.
  }];
  let arguments = (ins FlatSymbolRefAttr:$callee, Variadic<AnyType>:$inputs,
                       TypedArrayAttrBase<FlatSymbolRefAttr, "parameter symbols">:$params,
                       OptionalAttr<I64Attr>:$state,
                       OptionalAttr<FlatSymbolRefAttr>:$device);
  let results = (outs AnyType:$result);
  let assemblyFormat = [{
    $callee `(` $inputs `)` (`state` $state^)? `params` $params (`on` $device^)?
    attr-dict `:` functional-type($inputs, $result)
  }];
}

//===----------------------------------------------------------------------===//
// Weight programs
//===----------------------------------------------------------------------===//

def FM_ParamOp : FM_Op<"param", [Symbol, IsolatedFromAbove, SingleBlock]> {
  let summary = "a parameter: a symbol, its stored type, and the program that makes it";
  let description = [{
    Weights never become constants of the IR. The region is executed at compile
    time in blocks of rows, streaming from the mapped source into the bundle.

    ```mlir
    fm.param @l0.q : !fm.weight<[576, 576], int4, group = 32> {
      %0 = fm.source "model.gguf" at 1024 as "q4_1" : !fm.weight<[576, 576], f32>
      %1 = fm.unpermute_rows %0 {heads = 9 : i64} : !fm.weight<[576, 576], f32>
      %2 = fm.quantize %1 : !fm.weight<[576, 576], f32> -> !fm.weight<[576, 576], int4, group = 32>
      fm.yield %2 : !fm.weight<[576, 576], int4, group = 32>
    }
    ```
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, TypeAttrOf<FM_WeightType>:$type);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$sym_name `:` $type attr-dict-with-keyword $body";
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    WeightType getWeightType() { return ::llvm::cast<WeightType>(getType()); }
  }];
}

def FM_SourceOp : FM_Op<"source", [Pure]> {
  let summary = "the bytes of a checkpoint tensor, as f32 values";
  let description = [{
    `dtype` names the stored format as GGUF or safetensors does in lower case: f32,
    f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k; or ONNX's integers u8, i8, u4, i4
    (two to a byte, the first lowest), whose values are these numbers. The special file `<seed>`
    generates values from the seed given as `offset` (for shapes whose weights are
    not at hand).
  }];
  let arguments = (ins StrAttr:$file, I64Attr:$offset, StrAttr:$dtype);
  let results = (outs FM_WeightType:$result);
  let assemblyFormat = "$file `at` $offset `as` $dtype attr-dict `:` type($result)";
  let hasVerifier = 1;
}

def FM_LiteralOp : FM_Op<"literal", [Pure]> {
  let summary = "values that stand in the module";
  let description = [{
    For the small tensors of graphs that keep them beside their nodes.
  }];
  let arguments = (ins DenseF32ArrayAttr:$values);
  let results = (outs FM_WeightType:$result);
  let assemblyFormat = "$values attr-dict `:` type($result)";
  let hasVerifier = 1;
}

def FM_DequantizeOp : FM_Op<"dequantize", [Pure]> {
  let summary = "(value - zero point) * scale, as ONNX's DequantizeLinear";
  let description = [{
    Scales are one for all values, one a row, or a matrix of them, each for a block of
    neighbours in a row; zero points, if there are any, are as many.

    ```mlir
    %0 = fm.source "model.onnx.data" at 4096 as "u4" : !fm.weight<[960, 576], f32>
    %1 = fm.source "model.onnx.data" at 280576 as "f32" : !fm.weight<[960, 18], f32>
    %2 = fm.dequantize %0 by %1 : !fm.weight<[960, 576], f32>, !fm.weight<[960, 18], f32> -> !fm.weight<[960, 576], f32>
    ```
  }];
  let arguments = (ins FM_WeightType:$values, FM_WeightType:$scales,
                       Optional<FM_WeightType>:$zeros);
  let results = (outs FM_WeightType:$result);
  let assemblyFormat = [{
    $values `by` $scales (`from` $zeros^)? attr-dict `:` type($values) `,` type($scales)
    (`,` type($zeros)^)? `->` type($result)
  }];
  let hasVerifier = 1;
}

def FM_UnpermuteRowsOp : FM_Op<"unpermute_rows", [Pure, SameOperandsAndResultType]> {
  let summary = "undoes the row order in which GGUF stores query and key projections";
  let description = [{
    llama.cpp's converter interleaves the two halves of each head so that rotary
    pairs are neighbours. Row `h*D + 2*i + j` of the source is row `h*D + j*D/2 + i`
    of the result (D the head size), the order `fm.rotary` expects.
  }];
  let arguments = (ins FM_WeightType:$source, I64Attr:$heads);
  let results = (outs FM_WeightType:$result);
  let assemblyFormat = "$source attr-dict `:` type($result)";
  let hasVerifier = 1;
}

def FM_SliceRowsOp : FM_Op<"slice_rows", [Pure]> {
  let summary = "some of the rows of a matrix, or values of a vector, that several weights share";
  let arguments = (ins FM_WeightType:$source, I64Attr:$first);
  let results = (outs FM_WeightType:$result);
  let assemblyFormat = "$source `from` $first attr-dict `:` type($source) `->` type($result)";
  let hasVerifier = 1;
}

def FM_TransposeOp : FM_Op<"transpose", [Pure]> {
  let summary = "outputs x inputs of a matrix that was stored as inputs x outputs";
  let arguments = (ins FM_WeightType:$source);
  let results = (outs FM_WeightType:$result);
  let assemblyFormat = "$source attr-dict `:` type($source) `->` type($result)";
  let hasVerifier = 1;
}

def FM_AddConstantOp : FM_Op<"add_constant", [Pure, SameOperandsAndResultType]> {
  let summary = "adds a number to every value: norms that are stored as the difference from one";
  let arguments = (ins FM_WeightType:$source, F64Attr:$constant);
  let results = (outs FM_WeightType:$result);
  let assemblyFormat = "$source $constant attr-dict `:` type($result)";
}

def FM_PruneOp : FM_Op<"prune", [Pure, SameOperandsAndResultType]> {
  let summary = "sets the weights of least magnitude to zero";
  let description = [{
    `pattern` is "2:4" (of four consecutive inputs the two largest stay) or
    "unstructured" (in each output row the fraction `sparsity` goes).
  }];
  let arguments = (ins FM_WeightType:$source, StrAttr:$pattern,
                       DefaultValuedAttr<F64Attr, "0.5">:$sparsity);
  let results = (outs FM_WeightType:$result);
  let assemblyFormat = "$source $pattern attr-dict `:` type($result)";
  let hasVerifier = 1;
}

def FM_QuantizeOp : FM_Op<"quantize", [Pure]> {
  let summary = "rounds a weight to the result's format";
  let description = [{
    f16 and bf16 round to nearest even. int8 scales each group's largest magnitude to 127.
    int4 fits scale and offset of each group by least squares for a fixed set of
    ranges and keeps the best; of a source of four bits a group keeps its steps. Both then
    round to nearest. int4 with one scale takes the better of the two steps next to the
    fitted one. Blocks of GGUF are kept: the source must have them, and nothing but the order
    of rows may change before.
  }];
  let arguments = (ins FM_WeightType:$source);
  let results = (outs FM_WeightType:$result);
  let assemblyFormat = "$source attr-dict `:` type($source) `->` type($result)";
  let hasVerifier = 1;
}

def FM_YieldOp : FM_Op<"yield", [Pure, Terminator, HasParent<"ParamOp">]> {
  let summary = "ends a weight program";
  let arguments = (ins FM_WeightType:$value);
  let assemblyFormat = "$value attr-dict `:` type($value)";
}

//===----------------------------------------------------------------------===//
// Operators
//===----------------------------------------------------------------------===//

def FM_EmbeddingOp : FM_Op<"embedding", [Pure]> {
  let summary = "looks up the row of each token id";
  let arguments = (ins 1DTensorOf<[I32]>:$ids, FM_WeightType:$table);
  let results = (outs FM_Float:$result);
  let assemblyFormat = "$ids `,` $table attr-dict `:` type($ids) `,` type($table) `->` type($result)";
  let hasVerifier = 1;
}

def FM_LinearOp : FM_Op<"linear", [Pure, AttrSizedOperandSegments]> {
  let summary = "x * W^T, plus an optional bias, plus an optional residual";
  let description = [{
    Sums run over the inputs in ascending order with one accumulator an output. With
    a quantised weight the input is `!fm.qrows`, whose groups are whole groups of the
    weight: products are exact in int32 within a group of the weight, and added to the
    f32 accumulator by groups of the rows.
    With a bf16 weight the input is bf16 too; inputs come in pairs, and of each the
    second is added before the first, fused (the order of x86's VDPBF16PS).
    With rows in three parts, `tensor<?x3xNxbf16>`, an f32 weight is split too, and of
    the nine products of parts the six largest are summed (bf16x6, docs/numerics.md).
    With rows in one part, `tensor<?x1xNxbf16>`, a matrix unit multiplies a bf16 weight.
  }];
  let arguments = (ins FM_Activation:$x, FM_WeightType:$weight,
                       Optional<FM_WeightType>:$bias, Optional<FM_Float>:$residual);
  let results = (outs FM_Float:$result);
  let assemblyFormat = [{
    $x `,` $weight (`bias` $bias^)? (`residual` $residual^)? attr-dict
    `:` type($x) `,` type($weight) (`bias` type($bias)^)? (`residual` type($residual)^)? `->` type($result)
  }];
  let hasVerifier = 1;
}

def FM_AddOp : FM_Op<"add", [Pure, SameOperandsAndResultType, Commutative]> {
  let summary = "elementwise sum";
  let arguments = (ins FM_Float:$lhs, FM_Float:$rhs);
  let results = (outs FM_Float:$result);
  let assemblyFormat = "$lhs `,` $rhs attr-dict `:` type($result)";
  let hasCanonicalizer = 1;
}

def FM_RMSNormOp : FM_Op<"rms_norm", [Pure]> {
  let summary = "x / sqrt(mean(x^2) + epsilon) * weight (arXiv:1910.07467)";
  let description = [{
    With `heads` the features of each head are normalised by themselves, all with
    the same weights.
  }];
  let arguments = (ins FM_Float:$x, FM_WeightType:$weight, F64Attr:$epsilon,
                       DefaultValuedAttr<I64Attr, "1">:$heads);
  let results = (outs FM_Activation:$result);
  let assemblyFormat = "$x `,` $weight attr-dict `:` type($x) `,` type($weight) `->` type($result)";
  let hasVerifier = 1;
}

def FM_LayerNormOp : FM_Op<"layer_norm", [Pure]> {
  let summary = "(x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias (arXiv:1607.06450)";
  let arguments = (ins FM_Float:$x, FM_WeightType:$weight, FM_WeightType:$bias,
                       F64Attr:$epsilon);
  let results = (outs FM_Activation:$result);
  let assemblyFormat = [{
    $x `,` $weight `,` $bias attr-dict `:` type($x) `,` type($weight) `,` type($bias) `->` type($result)
  }];
  let hasVerifier = 1;
}

def FM_QuantizeRowsOp : FM_Op<"quantize_rows", [Pure]> {
  let summary = "rounds each row to bf16 or to int8 in groups, or splits it";
  let description = [{
    bf16 (also as the one part that a matrix unit takes): to nearest even. Three parts
    of bf16: a value's upper, middle and last eight bits of significance, whose sum it
    is. int8: scale = max|x| / 127 over the group, q = round-half-even(x * (127 /
    max|x|)); a group of zeros (max|x| at most 1e-30) gets q = 0. Folds into the
    producer where that can write the rounded rows. Rows of bf16 become int8 alone.
  }];
  let arguments = (ins 2DTensorOf<[F32, BF16]>:$x);
  let results = (outs FM_Rounded:$result);
  let assemblyFormat = "$x attr-dict `:` type($x) `->` type($result)";
  let hasVerifier = 1;
  let hasCanonicalizer = 1;
}

def FM_RotaryOp : FM_Op<"rotary", [Pure, AllTypesMatch<["x", "result"]>]> {
  let summary = "rotary position embedding (arXiv:2104.09864), halves rotated";
  let description = [{
    For each head of size D and i < D/2: the pair (x[i], x[i + D/2]) is rotated by
    position * theta^(-2i/D), divided by `factors[i]` if there are any: models that
    were stretched to longer contexts turn slowly.

    Every step to a frequency is rounded to f32, in the order in which models are
    trained (transformers): an ulp is an angle of 1e-4 after 1,500 tokens.
  }];
  let arguments = (ins FM_Float:$x, FM_RowsType:$rows, I64Attr:$head_dim, F64Attr:$theta,
                       OptionalAttr<DenseF32ArrayAttr>:$factors);
  let results = (outs FM_Float:$result);
  let assemblyFormat = "$x `,` $rows attr-dict `:` type($x)";
  let extraClassDeclaration = [{
    /// Radians a position, for each pair of a head: head_dim / 2 of them.
    ::llvm::SmallVector<float> getFrequencies();
  }];
  let hasVerifier = 1;
}

def FM_AttentionOp : FM_Op<"attention", [AllTypesMatch<["k", "v"]>, MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "appends keys and values to the cache and attends to it";
  let description = [{
    Grouped-query attention: query head h reads key/value head h * kv_heads / heads.
    Keys are stored after rotary embedding at absolute positions. With `window` a
    row sees the first `sinks` positions and the last `window` ones
    (arXiv:2309.17453); without, all positions up to its own. A `bidirectional` row
    sees all positions of its sequence, which is whole in the step: the state then
    means nothing between calls, and all of them may share one. The cache stores keys and values as `kv_format`: f32, f16, bf16, or int8 with a scale for each key and
    each value of a head, rounded to nearest even. With bf16 queries and probabilities
    are rounded to bf16 too, the latter relative to the largest of their partition
    (docs/numerics.md); `in_tiles` such products are made in a matrix unit.
  }];
  let arguments = (ins FM_Float:$q, FM_Float:$k, FM_Float:$v, FM_RowsType:$rows,
                       FM_StateType:$state, I64Attr:$heads, I64Attr:$kv_heads,
                       F64Attr:$scale, OptionalAttr<I64Attr>:$sinks,
                       OptionalAttr<I64Attr>:$window, UnitAttr:$bidirectional,
                       DefaultValuedAttr<FM_WeightFormat, "::isthmus::fm::WeightFormat::F32">:$kv_format,
                       UnitAttr:$in_tiles);
  let results = (outs FM_Float:$result);
  let extraClassDeclaration = [{
    /// Features of a head.
    int64_t getHeadFeatures();
    /// Whether a matrix unit of bf16 can make the products.
    bool fitsTiles();
  }];
  let assemblyFormat = "$q `,` $k `,` $v `,` $rows `,` $state (`bidirectional` $bidirectional^)? (`kv` $kv_format^)? (`in_tiles` $in_tiles^)? attr-dict `:` type($q) `,` type($k) `->` type($result)";
  let hasVerifier = 1;
}

def FM_ActivateOp : FM_Op<"activate", [Pure]> {
  let summary = "an activation function of each value";
  let description = [{
    silu: x * sigmoid(x). gelu_erf: x * (1 + erf(x / sqrt(2))) / 2 (arXiv:1606.08415);
    gelu_tanh is its approximation x * sigmoid(1.5957691 * (x + 0.044715 x^3)), and
    quick_gelu is x * sigmoid(1.702 x).
  }];
  let arguments = (ins FM_Function:$function, FM_Float:$x);
  let results = (outs FM_Activation:$result);
  let assemblyFormat = "$function $x attr-dict `:` type($x) `->` type($result)";
  let hasVerifier = 1;
}

def FM_GluOp : FM_Op<"glu", [Pure, AllTypesMatch<["gate", "up"]>]> {
  let summary = "function(gate) * up, the gated unit of feed-forward layers (arXiv:2002.05202)";
  let arguments = (ins FM_Float:$gate, FM_Float:$up,
                       DefaultValuedAttr<FM_Function, "::isthmus::fm::Function::Silu">:$function);
  let results = (outs FM_Activation:$result);
  let assemblyFormat = "$gate `,` $up (`with` $function^)? attr-dict `:` type($gate) `->` type($result)";
  let hasVerifier = 1;
  let hasCanonicalizer = 1;
}

def FM_GatedLinearOp : FM_Op<"gated_linear", [Pure, AllTypesMatch<["gate", "up"]>]> {
  let summary = "function(x gate^T) * (x up^T): both products of a gated unit and the gate at once";
  let description = [{
    What `fm.linear`, `fm.linear` and `fm.glu` compute, without the two
    intermediate values leaving the kernel (arXiv:2002.05202).
  }];
  let arguments = (ins FM_Activation:$x, FM_WeightType:$gate, FM_WeightType:$up,
                       DefaultValuedAttr<FM_Function, "::isthmus::fm::Function::Silu">:$function);
  let results = (outs FM_Activation:$result);
  let assemblyFormat = "$x `,` $gate `,` $up (`with` $function^)? attr-dict `:` type($x) `,` type($gate) `->` type($result)";
  let hasVerifier = 1;
}

def FM_ScaleOp : FM_Op<"scale", [Pure, AllTypesMatch<["x", "result"]>]> {
  let summary = "x * factor";
  let arguments = (ins FM_Float:$x, F64Attr:$factor);
  let results = (outs FM_Float:$result);
  let assemblyFormat = "$x `by` $factor attr-dict `:` type($x)";
}

def FM_PositionEmbeddingOp : FM_Op<"position_embedding", [Pure, AllTypesMatch<["x", "result"]>]> {
  let summary = "x plus the row of a table that belongs to each row's position";
  let arguments = (ins FM_Float:$x, FM_RowsType:$rows, FM_WeightType:$table);
  let results = (outs FM_Float:$result);
  let assemblyFormat = "$x `,` $rows `,` $table attr-dict `:` type($x) `,` type($table)";
  let hasVerifier = 1;
}

def FM_SelectRowsOp : FM_Op<"select_rows", [Pure, AllTypesMatch<["x", "result"]>]> {
  let summary = "keeps the rows whose logits are wanted";
  let arguments = (ins FM_Float:$x, FM_RowsType:$rows);
  let results = (outs FM_Float:$result);
  let assemblyFormat = "$x `,` $rows attr-dict `:` type($x)";
}

def FM_AddVectorOp : FM_Op<"add_vector", [Pure, AllTypesMatch<["x", "result"]>]> {
  let summary = "x plus the same vector in every row";
  let arguments = (ins FM_Float:$x, FM_WeightType:$vector);
  let results = (outs FM_Float:$result);
  let assemblyFormat = "$x `,` $vector attr-dict `:` type($x) `,` type($vector)";
  let hasVerifier = 1;
}

def FM_ClassTokenOp : FM_Op<"class_token", [Pure, AllTypesMatch<["x", "result"]>]> {
  let summary = "x with a learned vector as the row of each position 0 (arXiv:2010.11929)";
  let arguments = (ins FM_Float:$x, FM_RowsType:$rows, FM_WeightType:$token);
  let results = (outs FM_Float:$result);
  let assemblyFormat = "$x `,` $rows `,` $token attr-dict `:` type($x) `,` type($token)";
  let hasVerifier = 1;
}

def FM_MeanRowsOp : FM_Op<"mean_rows", [Pure, AllTypesMatch<["x", "result"]>]> {
  let summary = "for each row that is wanted the mean of its sequence's rows, which are whole in the step";
  let arguments = (ins FM_Float:$x, FM_RowsType:$rows);
  let results = (outs FM_Float:$result);
  let assemblyFormat = "$x `,` $rows attr-dict `:` type($x)";
}

def FM_L2NormOp : FM_Op<"l2_norm", [Pure, AllTypesMatch<["x", "result"]>]> {
  let summary = "x / max(sqrt(sum(x^2)), 1e-12): rows of length one";
  let arguments = (ins FM_Float:$x);
  let results = (outs FM_Float:$result);
  let assemblyFormat = "$x attr-dict `:` type($x)";
}

#endif
