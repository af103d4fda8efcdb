//===- DistOps.td - placement and transfers -----------------*- tablegen -*-===//
#ifndef ISTHMUS_DIALECT_DIST_IR_DISTOPS_TD
#define ISTHMUS_DIALECT_DIST_IR_DISTOPS_TD

include "mlir/IR/OpBase.td"
include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/SymbolInterfaces.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

def Dist_Dialect : Dialect {
  let name = "dist";
  let cppNamespace = "::isthmus::dist";
  let summary = "What runs where, and what crosses between devices";
  let description = [{
    Before the split, one program with `dist.transfer`s between calls placed on
    different devices; after it, one `dist.stage` a device, joined by
    `dist.send` and `dist.recv`.
  }];
}

class Dist_Op<string opMnemonic, list<Trait> traits = []> : Op<Dist_Dialect, opMnemonic, traits>;

def Dist_TransferOp : Dist_Op<"transfer", [Pure, SameOperandsAndResultType]> {
  let summary = "moves a value from one device to another";
  let arguments = (ins AnyType:$value, FlatSymbolRefAttr:$source, FlatSymbolRefAttr:$destination);
  let results = (outs AnyType:$result);
  let assemblyFormat = "$value `from` $source `to` $destination attr-dict `:` type($value)";
  let hasVerifier = 1;
}

def Dist_StageOp : Dist_Op<"stage", [Symbol, SymbolTable, NoTerminator, SingleBlock]> {
  let summary = "the part of a program that one device runs";
  let arguments = (ins SymbolNameAttr:$sym_name, FlatSymbolRefAttr:$device);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$sym_name `on` $device attr-dict-with-keyword $body";
}

def Dist_SendOp : Dist_Op<"send", [MemoryEffects<[MemWrite]>]> {
  let summary = "sends a value to the stage on another device";
  let arguments = (ins AnyType:$value, FlatSymbolRefAttr:$to);
  let assemblyFormat = "$value `to` $to attr-dict `:` type($value)";
}

def Dist_RecvOp : Dist_Op<"recv", [MemoryEffects<[MemRead]>]> {
  let summary = "receives a value from the stage on another device";
  let arguments = (ins FlatSymbolRefAttr:$from);
  let results = (outs AnyType:$result);
  let assemblyFormat = "`from` $from attr-dict `:` type($result)";
}

#endif
