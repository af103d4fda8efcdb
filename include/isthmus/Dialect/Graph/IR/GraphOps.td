//===- GraphOps.td - graphs of tensors ----------------------*- tablegen -*-===//
#ifndef ISTHMUS_DIALECT_GRAPH_IR_GRAPHOPS_TD
#define ISTHMUS_DIALECT_GRAPH_IR_GRAPHOPS_TD

include "mlir/IR/OpBase.td"
include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/BuiltinAttributeInterfaces.td"
include "mlir/IR/SymbolInterfaces.td"
include "mlir/Interfaces/ControlFlowInterfaces.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

def Graph_Dialect : Dialect {
  let name = "graph";
  let cppNamespace = "::isthmus::graph";
  let summary = "Graphs of tensors whose sizes are known when they run";
  let description = [{
    What an ONNX file says after it was checked, inlined and converted to one
    version of the operators (`docs/onnx.md`). A `graph.node` is an operator by its
    name in ONNX; its attributes are those of the file. Values are tensors of known
    rank, in which any size may be dynamic, or sequences and optionals of them.
    `int8` is `i8` and `uint8` is `ui8`, so that signs are never lost; `bool` is `i1`,
    one byte in memory, as are the types of four and two bits.
  }];
  let useDefaultTypePrinterParser = 1;
}

class Graph_Op<string opMnemonic, list<Trait> traits = []>
    : Op<Graph_Dialect, opMnemonic, traits>;
class Graph_Type<string name, string typeMnemonic> : TypeDef<Graph_Dialect, name> {
  let mnemonic = typeMnemonic;
}

def Graph_StringType : Graph_Type<"String", "string"> {
  let summary = "an element of a tensor of texts";
}

def Graph_SequenceType : Graph_Type<"Sequence", "sequence"> {
  let summary = "a list of values of one type";
  let parameters = (ins "::mlir::Type":$element);
  let assemblyFormat = "`<` $element `>`";
}

def Graph_OptionalType : Graph_Type<"Optional", "optional"> {
  let summary = "a value, or none";
  let parameters = (ins "::mlir::Type":$element);
  let assemblyFormat = "`<` $element `>`";
}

def Graph_ProgramOp : Graph_Op<"program", [IsolatedFromAbove, Symbol, SingleBlock]> {
  let summary = "a graph that can be run";
  let description = [{
    The block's arguments are the inputs, the operands of `graph.return` the results;
    `argument_names` and `result_names` are how callers know them.

    ```mlir
    graph.program @main inputs ["x"] outputs ["y"] {
    ^bb0(%x: tensor<?xf32>):
      %y = graph.node "Abs"(%x) {} : (tensor<?xf32>) -> tensor<?xf32>
      graph.return %y : tensor<?xf32>
    }
    ```
  }];
  let arguments = (ins SymbolNameAttr:$sym_name,
                       StrArrayAttr:$argument_names, StrArrayAttr:$result_names);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = [{
    $sym_name `inputs` $argument_names `outputs` $result_names attr-dict-with-keyword $body
  }];
  let hasVerifier = 1;
}

def Graph_ReturnOp : Graph_Op<"return", [Pure, ReturnLike, Terminator]> {
  let summary = "ends a program or the body of a node";
  let arguments = (ins Variadic<AnyType>:$values);
  let assemblyFormat = "($values^ `:` type($values))? attr-dict";
}

def Graph_NoneOp : Graph_Op<"none", [Pure]> {
  let summary = "stands for an input that a node does not have";
  let results = (outs NoneType:$result);
  let assemblyFormat = "attr-dict";
}

def Graph_ConstantOp : Graph_Op<"constant", [Pure]> {
  let summary = "a tensor that the model holds";
  let description = [{
    Either `value`, or the place of its bytes in a file of the model, where they stand
    as in memory; elements of less than eight bits share bytes there, the first lowest.

    ```mlir
    %0 = graph.constant {value = dense<[0, -1]> : tensor<2xi64>} : tensor<2xi64>
    %1 = graph.constant {file = "model.onnx.data", offset = 4096 : i64} : tensor<768x768xf32>
    ```
  }];
  let arguments = (ins OptionalAttr<ElementsAttr>:$value, OptionalAttr<StrAttr>:$file,
                       OptionalAttr<I64Attr>:$offset);
  let results = (outs AnyType:$result);
  let assemblyFormat = "attr-dict `:` type($result)";
  let hasVerifier = 1;
}

def Graph_NodeOp : Graph_Op<"node"> {
  let summary = "an operator of ONNX";
  let description = [{
    ```mlir
    %2 = graph.node "Concat"(%0, %1) {axis = 1 : si64} : (tensor<?x2xf32>, tensor<?x3xf32>) -> tensor<?x5xf32>
    ```
    Bodies of control flow are regions, in the order of the attributes' names; so is that of
    `isthmus.Fused`, whose operators go element by element (`graph-fuse-elementwise`).
  }];
  let arguments = (ins StrAttr:$op, Variadic<AnyType>:$inputs, DictionaryAttr:$onnx_attributes,
                       OptionalAttr<StrAttr>:$name);
  let results = (outs Variadic<AnyType>:$outputs);
  let regions = (region VariadicRegion<AnyRegion>:$bodies);
  let assemblyFormat = [{
    $op `(` $inputs `)` ($name^)? $onnx_attributes attr-dict `:` functional-type($inputs, $outputs) $bodies
  }];
}

#endif
