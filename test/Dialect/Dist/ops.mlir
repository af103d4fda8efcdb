// RUN: isthmus-opt %s | isthmus-opt | FileCheck %s

// CHECK: dist.stage @s0 on @a {
dist.stage @s0 on @a {
  fm.program @main(%x: tensor<?x32xf32>) {
    // CHECK: dist.send %{{.*}} to @b : tensor<?x32xf32>
    dist.send %x to @b : tensor<?x32xf32>
    fm.return
  }
}
// CHECK: dist.stage @s1 on @b {
dist.stage @s1 on @b {
  fm.program @main() -> tensor<?x32xf32> {
    // CHECK: dist.recv from @a : tensor<?x32xf32>
    %0 = dist.recv from @a : tensor<?x32xf32>
    fm.return %0 : tensor<?x32xf32>
  }
}
