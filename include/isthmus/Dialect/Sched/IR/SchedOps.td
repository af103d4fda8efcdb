//===- SchedOps.td - what the runtime executes --------------*- tablegen -*-===//
#ifndef ISTHMUS_DIALECT_SCHED_IR_SCHEDOPS_TD
#define ISTHMUS_DIALECT_SCHED_IR_SCHEDOPS_TD

include "mlir/IR/OpBase.td"
include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/EnumAttr.td"
include "mlir/IR/SymbolInterfaces.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

def Sched_Dialect : Dialect {
  let name = "sched";
  let cppNamespace = "::isthmus::sched";
  let summary = "Schedule templates: launches over named buffers";
  let description = [{
    One `sched.template` a kind of block. It translates one-to-one to the bundle's
    `Template` message; the linker (MLIR-free, `runtime/`) strings templates
    together along a plan and lays out memory.
  }];
  let useDefaultTypePrinterParser = 1;
  let useDefaultAttributePrinterParser = 1;
}

class Sched_Op<string opMnemonic, list<Trait> traits = []> : Op<Sched_Dialect, opMnemonic, traits>;
class Sched_Type<string name, string typeMnemonic> : TypeDef<Sched_Dialect, name> {
  let mnemonic = typeMnemonic;
}

def Sched_RowKind : I32EnumAttr<"RowKind", "which rows of the step a buffer or launch has",
    [I32EnumAttrCase<"Tokens", 0, "tokens">, I32EnumAttrCase<"Outputs", 1, "outputs">]> {
  let cppNamespace = "::isthmus::sched";
}

def Sched_Steps : I32EnumAttr<"Steps", "which steps a launch belongs to",
    [I32EnumAttrCase<"Any", 0, "any">, I32EnumAttrCase<"Small", 1, "small">,
     I32EnumAttrCase<"Large", 2, "large">]> {
  let cppNamespace = "::isthmus::sched";
}

def Sched_Arithmetic : I32EnumAttr<"Arithmetic", "what most of a kernel's operations work on",
    [I32EnumAttrCase<"F32", 0, "f32">, I32EnumAttrCase<"Int8", 1, "int8">,
     I32EnumAttrCase<"BF16", 2, "bf16">, I32EnumAttrCase<"BF16x6", 3, "bf16x6">,
     I32EnumAttrCase<"BF16x1", 4, "bf16x1">]> {
  let cppNamespace = "::isthmus::sched";
}

def Sched_CostAttr : AttrDef<Sched_Dialect, "Cost"> {
  let mnemonic = "cost";
  let summary = "what a launch must read and compute at least";
  let description = [{
    `bytes` once a launch (its weights), `row_bytes` for each row, `position_bytes` for
    each cached position of each sequence; `row_ops` for each row and `position_ops`
    for each position that a row attends to (its whole sequence if `bidirectional`), one multiply-add being two operations.
    Profiles set a launch's time against them (`isthmus bench --profile`).

    ```mlir
    #sched.cost<bytes = 186624, row_bytes = 3136, row_ops = 663552, arithmetic = int8>
    ```
  }];
  let parameters = (ins
      DefaultValuedParameter<"int64_t", "0">:$bytes,
      DefaultValuedParameter<"int64_t", "0">:$row_bytes,
      DefaultValuedParameter<"int64_t", "0">:$position_bytes,
      DefaultValuedParameter<"int64_t", "0">:$row_ops,
      DefaultValuedParameter<"int64_t", "0">:$position_ops,
      DefaultValuedParameter<"bool", "false">:$bidirectional,
      DefaultValuedParameter<"::isthmus::sched::Arithmetic", "::isthmus::sched::Arithmetic::F32">:$arithmetic);
  let assemblyFormat = "`<` struct(params) `>`";
}

def Sched_BufferType : Sched_Type<"Buffer", "buffer"> {
  let summary = "activation memory: `rowBytes` for each row of the kind";
  let parameters = (ins "int64_t":$rowBytes, EnumParameter<Sched_RowKind>:$rows);
  let assemblyFormat = "`<` $rowBytes `,` $rows `>`";
}
def Sched_WeightType : Sched_Type<"Weight", "weight"> {
  let summary = "a packed weight, bound by the call";
}
def Sched_StateType : Sched_Type<"State", "state"> {
  let summary = "state of one layer, bound by the call";
}

def Sched_TemplateOp : Sched_Op<"template", [Symbol, IsolatedFromAbove, NoTerminator, SingleBlock]> {
  let summary = "the launches of one kind of block";
  let description = [{
    The entry block's arguments are: the input buffer (absent in the first block of
    a program, whose input is the step's token ids), the output buffer, the weights
    in the order of the block's parameters, and the state if it keeps one.
  }];
  let arguments = (ins SymbolNameAttr:$sym_name);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$sym_name attr-dict-with-keyword $body";
}

def Sched_BufferOp : Sched_Op<"buffer", [Pure, HasParent<"TemplateOp">]> {
  let summary = "a temporary of the template; the linker gives it an address";
  let description = [{
    With `per_thread` each thread has a copy of its own in small steps.
  }];
  let arguments = (ins UnitAttr:$per_thread);
  let results = (outs Sched_BufferType:$result);
  let assemblyFormat = "(`per_thread` $per_thread^)? attr-dict `:` type($result)";
  let hasVerifier = 1;
}

def Sched_LaunchOp : Sched_Op<"launch", [HasParent<"TemplateOp">]> {
  let summary = "runs a kernel over its tiles";
  let description = [{
    `tiles` is the number of tiles for each run of at most `rows_per_tile` rows, multiplied
    by the number of attention partitions of the step's longest sequence if
    `per_partition`. A launch `in small` or `in large` steps is left out of the others.
    With `wait` all earlier launches are complete before this one starts. `scratch`
    is the private memory, in bytes, that each thread hands to the kernel.

    In steps of few rows a barrier costs more than a row of work. There a launch with
    `replicate` is run whole by every thread, into buffers that are `per_thread`, and
    launches that only need its results carry `wait_large`: they wait in large steps
    alone.

    The kernel's symbol names a function with the ABI of `docs/bundle-format.md`:
    `void(const Args *, int64_t tileBegin, int64_t tileEnd, void *scratch)`.
  }];
  let arguments = (ins FlatSymbolRefAttr:$kernel, Variadic<AnyType>:$operands_,
                       I64Attr:$tiles, UnitAttr:$per_partition,
                       Sched_RowKind:$rows,
                       DefaultValuedAttr<Sched_Steps, "::isthmus::sched::Steps::Any">:$steps,
                       UnitAttr:$wait, UnitAttr:$wait_large, UnitAttr:$replicate,
                       DefaultValuedAttr<I64Attr, "0">:$scratch,
                       DefaultValuedAttr<I64Attr, "1">:$rows_per_tile,
                       OptionalAttr<Sched_CostAttr>:$cost);
  let assemblyFormat = [{
    $kernel `(` $operands_ `)` `tiles` $tiles (`per_partition` $per_partition^)?
    `over` $rows (`in` $steps^)?
    (`wait` $wait^)? (`wait_large` $wait_large^)? (`replicate` $replicate^)?
    attr-dict `:` type($operands_)
  }];
  let hasVerifier = 1;
}

#endif
