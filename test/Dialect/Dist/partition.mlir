// RUN: cat %s %S/../../Inputs/two-layers.mlir | isthmus-opt --dist-partition=context=128 | FileCheck %s
// RUN: sed -e 's/memory 600000/memory 400000/' %s > %t.mlir
// RUN: cat %t.mlir %S/../../Inputs/two-layers.mlir | not isthmus-opt --dist-partition=context=128 2>&1 | FileCheck %s --check-prefix=ERROR
// RUN: not isthmus-opt %S/../../Inputs/two-layers.mlir --dist-partition 2>&1 | FileCheck %s --check-prefix=NONE

// The second device is faster, but the model fits neither alone.
topo.topology @home {
  topo.device @board memory 600000 bandwidth 6.0e9 ops 4.0e10 target "x86-64-avx2"
  topo.device @server memory 600000 bandwidth 2.0e10 ops 4.0e11 target "x86-64-avx2"
  topo.link @board, @server latency 2.0e-3 bandwidth 1.25e7
}

// CHECK: fm.program @main
// CHECK: fm.call @embed{{.*}} on @board
// CHECK: fm.call @layer{{.*}} on @board
// CHECK: dist.transfer %{{.*}} from @board to @server
// CHECK: fm.call @layer{{.*}} on @server
// CHECK: fm.call @head{{.*}} on @server

// ERROR: does not fit the topology: {{.*}} are missing
// NONE: the module has no topo.topology to place the model on
