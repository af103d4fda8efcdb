//===- Passes.td - passes over the graph dialect ------------*- tablegen -*-===//
#ifndef ISTHMUS_DIALECT_GRAPH_TRANSFORMS_PASSES_TD
#define ISTHMUS_DIALECT_GRAPH_TRANSFORMS_PASSES_TD

include "mlir/Pass/PassBase.td"

def FoldQDQ : Pass<"graph-fold-qdq", "::mlir::ModuleOp"> {
  let summary = "Multiply the integers that DequantizeLinear takes, not what it gives";
  let description = [{
    A product of two dequantised matrices, of which the second is constant, becomes one
    of integers, scaled afterwards: sums are exact, and no float of a weight is stored.
    Scales are one for the first, and one or one a column for the second.

    ```mlir
    %x = graph.node "DequantizeLinear"(%qx, %sx, %zx) {} : ...
    %w = graph.node "DequantizeLinear"(%qw, %sw, %zw) {axis = 1 : i64} : ...
    %y = graph.node "MatMul"(%x, %w) {} : ...
    // becomes
    %i = graph.node "MatMulInteger"(%qx, %qw, %zx, %zw) {} : ...
    %f = graph.node "Cast"(%i) {to = 1 : i64} : ...
    %s = graph.node "Mul"(%sx, %sw) {} : ...
    %y = graph.node "Mul"(%f, %s) {} : ...
    ```
  }];
  let statistics = [Statistic<"numFolded", "folded", "products that became integer">];
}

def ExpandPowers : Pass<"graph-expand-powers", "::mlir::ModuleOp"> {
  let summary = "Multiply instead of taking the second or third power";
  let description = [{
    Norms and approximations of GELU are written with `Pow`, which is a logarithm and an
    exponential.
  }];
  let statistics = [Statistic<"numExpanded", "expanded", "powers that became products">];
}

def RaiseGelu : Pass<"graph-raise-gelu", "::mlir::ModuleOp"> {
  let summary = "Find x * (erf(x / sqrt 2) + 1) / 2";
  let description = [{
    Exporters of older versions spell `Gelu` in five operators, each of which reads and writes the whole tensor.
  }];
  let statistics = [Statistic<"numRaised", "raised", "Gelu nodes made">];
}

def HoistConstants : Pass<"graph-hoist-constants", "::mlir::ModuleOp"> {
  let summary = "Move what hangs on constants alone out of the bodies of control flow";
  let description = [{
    At the outermost level it runs once, when the bundle is opened, instead of whenever its
    branch is taken: the parts of a recurrent layer's weights in another order, say. Only nodes
    that move or cast elements are moved.
  }];
  let statistics = [Statistic<"numHoisted", "hoisted", "operations moved">];
}

def PackProducts : Pass<"graph-pack-products", "::mlir::ModuleOp"> {
  let summary = "Lay out constant matrices as products read them";
  let description = [{
    `MatMul` and `Gemm` of f32, and `MatMulInteger`, by a constant matrix become products by one that
    `isthmus.PackFloats` or `isthmus.PackIntegers` makes, which run once, when the bundle is
    opened: panels of 16 columns, of bytes four rows side by side. A constant that is
    added to each column is the product's. Where the integers become f32 and are multiplied
    by a scale for all or for each column, and where a constant is added then to each column, the product
    does so itself, in the same roundings. `ConvInteger` by constant weights becomes
    `isthmus.PackedConvInteger` likewise, of pairs of int16; and a constant that is added to the channels of a
    `Conv` its bias.
  }];
  let statistics = [Statistic<"numPacked", "packed", "products by packed matrices">];
}

#endif
