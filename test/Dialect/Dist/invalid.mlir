// RUN: isthmus-opt %s --verify-diagnostics

fm.program @main(%x: tensor<?x32xf32>) -> tensor<?x32xf32> {
  // expected-error@+1 {{source and destination are the same device}}
  %0 = dist.transfer %x from @a to @a : tensor<?x32xf32>
  fm.return %0 : tensor<?x32xf32>
}
