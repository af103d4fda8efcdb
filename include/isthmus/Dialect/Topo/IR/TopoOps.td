//===- TopoOps.td - devices, links and budgets --------------*- tablegen -*-===//
#ifndef ISTHMUS_DIALECT_TOPO_IR_TOPOOPS_TD
#define ISTHMUS_DIALECT_TOPO_IR_TOPOOPS_TD

include "mlir/IR/OpBase.td"
include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/SymbolInterfaces.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

def Topo_Dialect : Dialect {
  let name = "topo";
  let cppNamespace = "::isthmus::topo";
  let summary = "The devices a model is deployed on and the links between them";
  let description = [{
    What a topology file says, as IR: budgets and speeds of devices, latency and
    bandwidth of links. Units are in the attribute names' documentation; a planner
    reads this dialect and nothing else about the hardware.
  }];
}

class Topo_Op<string opMnemonic, list<Trait> traits = []> : Op<Topo_Dialect, opMnemonic, traits>;

def Topo_TopologyOp : Topo_Op<"topology", [Symbol, SymbolTable, NoTerminator, SingleBlock,
                                           IsolatedFromAbove]> {
  let summary = "a set of devices and links";
  let arguments = (ins SymbolNameAttr:$sym_name);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$sym_name attr-dict-with-keyword $body";
}

def Topo_DeviceOp : Topo_Op<"device", [Symbol, HasParent<"TopologyOp">]> {
  let summary = "a device that runs part of a model";
  let description = [{
    `memory` is the budget in bytes for weights, KV cache and activations;
    `bandwidth` the memory read bandwidth in bytes a second; `ops` the arithmetic
    throughput in operations a second (one multiply-add is two); `target` the
    names of target descriptions (`docs/add-a-target.md`), separated by commas.
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, I64Attr:$memory, F64Attr:$bandwidth,
                       F64Attr:$ops, StrAttr:$target);
  let assemblyFormat = "$sym_name `memory` $memory `bandwidth` $bandwidth `ops` $ops `target` $target attr-dict";
  let hasVerifier = 1;
}

def Topo_LinkOp : Topo_Op<"link", [HasParent<"TopologyOp">]> {
  let summary = "a link between two devices, the same in both directions";
  let description = [{`latency` in seconds one way, `bandwidth` in bytes a second.}];
  let arguments = (ins FlatSymbolRefAttr:$a, FlatSymbolRefAttr:$b, F64Attr:$latency,
                       F64Attr:$bandwidth);
  let assemblyFormat = "$a `,` $b `latency` $latency `bandwidth` $bandwidth attr-dict";
  let hasVerifier = 1;
}

#endif
