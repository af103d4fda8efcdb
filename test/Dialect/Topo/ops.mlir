// RUN: isthmus-opt %s | isthmus-opt | FileCheck %s

// CHECK: topo.topology @home {
// CHECK:   topo.device @board memory 64000000 bandwidth 6.000000e+09 ops 4.000000e+10 target "aarch64"
// CHECK:   topo.link @board, @server latency 2.000000e-03 bandwidth 1.250000e+07
topo.topology @home {
  topo.device @board memory 64000000 bandwidth 6.0e9 ops 4.0e10 target "aarch64"
  topo.device @server memory 128000000 bandwidth 2.0e10 ops 4.0e11 target "x86-64-avx2"
  topo.link @board, @server latency 2.0e-3 bandwidth 1.25e7
}
