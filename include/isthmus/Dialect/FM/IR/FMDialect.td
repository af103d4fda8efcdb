//===- FMDialect.td - foundation-model dialect --------------*- tablegen -*-===//
#ifndef ISTHMUS_DIALECT_FM_IR_FMDIALECT_TD
#define ISTHMUS_DIALECT_FM_IR_FMDIALECT_TD

include "mlir/IR/OpBase.td"
include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/EnumAttr.td"

def FM_Dialect : Dialect {
  let name = "fm";
  let cppNamespace = "::isthmus::fm";
  let summary = "Foundation models at the grain at which they are optimised";
  let description = [{
    A model is a module of *blocks*, *parameters* and *programs*:

    - an `fm.block` is one kind of block (embedding, decoder layer, head), written
      once however many layers the model has;
    - an `fm.param` is a weight: a symbol whose region, the *weight program*, says
      where its bytes come from and what is done to them before they are stored;
    - an `fm.program` is a chain of `fm.call`s that binds blocks to parameters and
      to per-layer state.

    Activations are tensors of shape `rows x features`: a row is one token of the
    ragged batch of a step. What sequence and position a row belongs to stands in
    the `!fm.rows` value, which only attention, rotary embedding and row selection
    look at.
  }];
  let useDefaultTypePrinterParser = 1;
}

class FM_Type<string name, string typeMnemonic> : TypeDef<FM_Dialect, name> {
  let mnemonic = typeMnemonic;
}

def FM_FormatF32 : I32EnumAttrCase<"F32", 0, "f32">;
def FM_FormatF16 : I32EnumAttrCase<"F16", 1, "f16">;
def FM_FormatBF16 : I32EnumAttrCase<"BF16", 2, "bf16">;
def FM_FormatInt8 : I32EnumAttrCase<"Int8", 3, "int8">;
def FM_FormatInt4 : I32EnumAttrCase<"Int4", 4, "int4">;
def FM_FormatQ8_0 : I32EnumAttrCase<"Q8_0", 5, "q8_0">;
def FM_FormatQ4_0 : I32EnumAttrCase<"Q4_0", 6, "q4_0">;
def FM_FormatQ4_1 : I32EnumAttrCase<"Q4_1", 7, "q4_1">;
def FM_FormatQ5_0 : I32EnumAttrCase<"Q5_0", 8, "q5_0">;
def FM_FormatQ5_1 : I32EnumAttrCase<"Q5_1", 9, "q5_1">;
def FM_FormatQ4_K : I32EnumAttrCase<"Q4_K", 10, "q4_k">;
def FM_FormatQ5_K : I32EnumAttrCase<"Q5_K", 11, "q5_k">;
def FM_FormatQ6_K : I32EnumAttrCase<"Q6_K", 12, "q6_k">;
def FM_FormatInt7 : I32EnumAttrCase<"Int7", 13, "int7">;
def FM_WeightFormat : I32EnumAttr<"WeightFormat", "how a weight's values are stored",
    [FM_FormatF32, FM_FormatF16, FM_FormatBF16, FM_FormatInt8, FM_FormatInt4,
     FM_FormatQ8_0, FM_FormatQ4_0, FM_FormatQ4_1, FM_FormatQ5_0, FM_FormatQ5_1,
     FM_FormatQ4_K, FM_FormatQ5_K, FM_FormatQ6_K, FM_FormatInt7]> {
  let cppNamespace = "::isthmus::fm";
}

def FM_FunctionSilu : I32EnumAttrCase<"Silu", 0, "silu">;
def FM_FunctionGeluTanh : I32EnumAttrCase<"GeluTanh", 1, "gelu_tanh">;
def FM_FunctionGeluErf : I32EnumAttrCase<"GeluErf", 2, "gelu_erf">;
def FM_FunctionQuickGelu : I32EnumAttrCase<"QuickGelu", 3, "quick_gelu">;
def FM_Function : I32EnumAttr<"Function", "an activation function",
    [FM_FunctionSilu, FM_FunctionGeluTanh, FM_FunctionGeluErf, FM_FunctionQuickGelu]> {
  let cppNamespace = "::isthmus::fm";
}

def FM_WeightType : FM_Type<"Weight", "weight"> {
  let summary = "a weight matrix (outputs x inputs) or vector";
  let description = [{
    `format` is f32, f16, bf16, int8, int7, int4, or one of the blocks of GGUF, q8_0, q4_0, q4_1,
    q5_0, q5_1, q4_k, q5_k and q6_k. The integer formats are quantised in groups
    of `group` consecutive inputs. int8: `value = scale * q` with an f16 scale a
    group and q in [-127, 127] (8.25 bits a weight in groups of 64); the group may be
    the whole row. int7: as int8 with q in [-64, 64], which an instruction set without
    products of bytes in int32 multiplies in fewer steps. int4: `value = rowScale * scale *
    q + rowOffset * offset` with q in [0, 15], 8-bit scale and offset a group and two
    f32 factors an output (4.5 bits a weight); or, where `group` is the whole row,
    `value = scale * (step * (q - 8) + offset)` with an f32 scale an output, and step and offset,
    8-bit integers, for each 32 inputs (4.5 bits as well). Blocks have groups of 32, q6_k of 16,
    and are a file's own, value by value: nothing is quantised to them.

    ```mlir
    !fm.weight<[576, 1536], int4, group = 32>
    !fm.weight<[576, 1536], int4, group = 1536>
    !fm.weight<[576, 1536], q4_k, group = 32>
    !fm.weight<[576], f32>
    ```
  }];
  let parameters = (ins ArrayRefParameter<"int64_t">:$shape,
                        EnumParameter<FM_WeightFormat>:$format,
                        DefaultValuedParameter<"int64_t", "0">:$group);
  let assemblyFormat = "`<` `[` $shape `]` `,` $format (`,` `group` `=` $group^)? `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    bool isQuantized() const {
      return fm::isQuantized(getFormat());
    }
    /// How it lies in a bundle.
    PackedLayout getPackedLayout() const;
  }];
}

def FM_QRowsType : FM_Type<"QRows", "qrows"> {
  let summary = "rows of activations quantised to int8 in groups";
  let description = [{
    Each row holds `features` int8 values and, for each group of `group` of them,
    an f32 scale; their sums are stored beside them. Scales depend on the row
    alone, never on the batch (`docs/numerics.md`).
  }];
  let parameters = (ins "int64_t":$features, "int64_t":$group);
  let assemblyFormat = "`<` $features `,` `group` `=` $group `>`";
}

def FM_RowsType : FM_Type<"Rows", "rows"> {
  let summary = "what each row of the step is: its sequence, position, and whether its logits are wanted";
}

def FM_StateType : FM_Type<"State", "state"> {
  let summary = "per-layer state of the sequences in the step; the paged KV cache is one kind";
}

#endif
