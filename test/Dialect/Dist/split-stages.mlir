// RUN: isthmus-opt %s --dist-split-stages | FileCheck %s
// RUN: sed -e 's/ on @a / /' %s | not isthmus-opt --dist-split-stages 2>&1 | FileCheck %s --check-prefix=ERROR

fm.block @layer(%x: tensor<?x32xf32>, %rows: !fm.rows) -> tensor<?x32xf32> {
  fm.return %x : tensor<?x32xf32>
}

// CHECK: dist.stage @main_0 on @a {
// CHECK: fm.program @main(%[[X:.*]]: tensor<?x32xf32>, %{{.*}}: !fm.rows) {
// CHECK: %[[Y:.*]] = fm.call @layer(%[[X]]
// CHECK: dist.send %[[Y]] to @b
// CHECK: fm.return
// CHECK: dist.stage @main_1 on @b {
// CHECK: fm.program @main({{.*}}) -> tensor<?x32xf32>
// CHECK: %[[R:.*]] = dist.recv from @a
// CHECK: %[[Z:.*]] = fm.call @layer(%[[R]]
// CHECK: fm.return %[[Z]]
fm.program @main(%x: tensor<?x32xf32>, %rows: !fm.rows) -> tensor<?x32xf32> {
  %0 = fm.call @layer(%x, %rows) params [] on @a : (tensor<?x32xf32>, !fm.rows) -> tensor<?x32xf32>
  %1 = dist.transfer %0 from @a to @b : tensor<?x32xf32>
  %2 = fm.call @layer(%1, %rows) params [] on @b : (tensor<?x32xf32>, !fm.rows) -> tensor<?x32xf32>
  fm.return %2 : tensor<?x32xf32>
}

// ERROR: is on no device: run dist-partition first
