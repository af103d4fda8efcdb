// RUN: isthmus-opt %s --split-input-file --verify-diagnostics

// expected-error@+1 {{group of 32 does not divide the 48 inputs}}
fm.param @w : !fm.weight<[16, 48], int8, group = 32> {
}

// -----

// expected-error@+1 {{int4 has groups of 32, or one for all inputs, a multiple of that; got 64 of 128 inputs}}
fm.param @w : !fm.weight<[16, 128], int4, group = 64> {
}

// -----

// expected-error@+1 {{q6_k has groups of 16 in whole blocks of 256; got 32 of 256 inputs}}
fm.param @w : !fm.weight<[16, 256], q6_k, group = 32> {
}

// -----

// expected-error@+1 {{q4_k has groups of 32 in whole blocks of 256; got 32 of 128 inputs}}
fm.param @w : !fm.weight<[16, 128], q4_k, group = 32> {
}

// -----

// What another format says of its values is not what a block keeps.
fm.param @w : !fm.weight<[16, 64], q8_0, group = 32> {
  %0 = fm.source "m.gguf" at 0 as "q5_0" : !fm.weight<[16, 64], f32>
  // expected-error@+1 {{keeps blocks of q8_0, and takes rows of a source that has them}}
  %1 = fm.quantize %0 : !fm.weight<[16, 64], f32> -> !fm.weight<[16, 64], q8_0, group = 32>
  fm.yield %1 : !fm.weight<[16, 64], q8_0, group = 32>
}

// -----

// Nor are they what was computed of them.
fm.param @w : !fm.weight<[16, 64], q8_0, group = 32> {
  %0 = fm.source "m.gguf" at 0 as "q8_0" : !fm.weight<[16, 64], f32>
  %1 = fm.prune %0 "2:4" : !fm.weight<[16, 64], f32>
  // expected-error@+1 {{keeps blocks of q8_0, and takes rows of a source that has them}}
  %2 = fm.quantize %1 : !fm.weight<[16, 64], f32> -> !fm.weight<[16, 64], q8_0, group = 32>
  fm.yield %2 : !fm.weight<[16, 64], q8_0, group = 32>
}

// -----

// expected-error@+1 {{'group' goes with formats of integers only}}
fm.param @w : !fm.weight<[16, 32], f32, group = 32> {
}

// -----

// expected-error@+1 {{weight dimensions must be positive, got 0}}
fm.param @w : !fm.weight<[0, 32], f32> {
}

// -----

// expected-error@+1 {{yields '!fm.weight<[32], f32>' but is declared '!fm.weight<[16], f32>'}}
fm.param @w : !fm.weight<[16], f32> {
  %0 = fm.source "m" at 0 as "f32" : !fm.weight<[32], f32>
  fm.yield %0 : !fm.weight<[32], f32>
}

// -----

fm.param @w : !fm.weight<[16], f32> {
  // expected-error@+1 {{unknown dtype 'q3_k'}}
  %0 = fm.source "m" at 0 as "q3_k" : !fm.weight<[16], f32>
  fm.yield %0 : !fm.weight<[16], f32>
}

// -----

fm.param @w : !fm.weight<[6, 4], f32> {
  %0 = fm.source "m" at 0 as "f32" : !fm.weight<[6, 4], f32>
  // expected-error@+1 {{needs an even number of rows a head: 6 rows, 2 heads}}
  %1 = fm.unpermute_rows %0 {heads = 2 : i64} : !fm.weight<[6, 4], f32>
  fm.yield %1 : !fm.weight<[6, 4], f32>
}

// -----

fm.param @w : !fm.weight<[6, 4], f32> {
  %0 = fm.source "m" at 0 as "f32" : !fm.weight<[6, 4], f32>
  // expected-error@+1 {{pattern must be "2:4" or "unstructured", got "1:4"}}
  %1 = fm.prune %0 "1:4" : !fm.weight<[6, 4], f32>
  fm.yield %1 : !fm.weight<[6, 4], f32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>, %w: !fm.weight<[16, 48], f32>) -> tensor<?x16xf32> {
  // expected-error@+1 {{input has 32 features, the weight takes 48}}
  %0 = fm.linear %x, %w : tensor<?x32xf32>, !fm.weight<[16, 48], f32> -> tensor<?x16xf32>
  fm.return %0 : tensor<?x16xf32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>, %w: !fm.weight<[16, 32], int8, group = 32>) -> tensor<?x16xf32> {
  // expected-error@+1 {{quantised weights go with !fm.qrows inputs}}
  %0 = fm.linear %x, %w : tensor<?x32xf32>, !fm.weight<[16, 32], int8, group = 32> -> tensor<?x16xf32>
  fm.return %0 : tensor<?x16xf32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>, %w: !fm.weight<[16], f32>) -> tensor<?x32xf32> {
  // expected-error@+1 {{weight must be !fm.weight<[32], f32>}}
  %0 = fm.rms_norm %x, %w {epsilon = 1.0e-5 : f64} : tensor<?x32xf32>, !fm.weight<[16], f32> -> tensor<?x32xf32>
  fm.return %0 : tensor<?x32xf32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>, %rows: !fm.rows) -> tensor<?x32xf32> {
  // expected-error@+1 {{head_dim must be even and divide the features}}
  %0 = fm.rotary %x, %rows {head_dim = 12 : i64, theta = 1.0e4 : f64} : tensor<?x32xf32>
  fm.return %0 : tensor<?x32xf32>
}

// -----

fm.block @b(%x: tensor<?x48xf32>, %rows: !fm.rows, %kv: !fm.state) -> tensor<?x48xf32> {
  // expected-error@+1 {{heads must be a multiple of kv_heads, got 3 and 2}}
  %0 = fm.attention %x, %x, %x, %rows, %kv {heads = 3 : i64, kv_heads = 2 : i64, scale = 1.0 : f64} : tensor<?x48xf32>, tensor<?x48xf32> -> tensor<?x48xf32>
  fm.return %0 : tensor<?x48xf32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>) -> tensor<?x32xf32> {
  // expected-error@+1 {{but 'b' declares}}
  fm.return
}

// -----

fm.program @p(%x: tensor<?x32xf32>, %rows: !fm.rows) -> tensor<?x32xf32> {
  // expected-error@+1 {{no fm.block named 'nothing'}}
  %0 = fm.call @nothing(%x, %rows) params [] : (tensor<?x32xf32>, !fm.rows) -> tensor<?x32xf32>
  fm.return %0 : tensor<?x32xf32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>, %rows: !fm.rows, %w: !fm.weight<[32], f32>) -> tensor<?x32xf32> {
  fm.return %x : tensor<?x32xf32>
}
fm.program @p(%x: tensor<?x32xf32>, %rows: !fm.rows) -> tensor<?x32xf32> {
  // expected-error@+1 {{to block 'b', which takes}}
  %0 = fm.call @b(%x, %rows) params [] : (tensor<?x32xf32>, !fm.rows) -> tensor<?x32xf32>
  fm.return %0 : tensor<?x32xf32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>, %g: !fm.weight<[64, 48], f32>, %u: !fm.weight<[64, 48], f32>) -> tensor<?x64xf32> {
  // expected-error@+1 {{input has 32 features, the weight takes 48}}
  %0 = fm.gated_linear %x, %g, %u : tensor<?x32xf32>, !fm.weight<[64, 48], f32> -> tensor<?x64xf32>
  fm.return %0 : tensor<?x64xf32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>, %g: !fm.weight<[64, 32], int4, group = 32>, %u: !fm.weight<[64, 32], int4, group = 32>) -> tensor<?x64xf32> {
  // expected-error@+1 {{quantised weights go with !fm.qrows inputs}}
  %0 = fm.gated_linear %x, %g, %u : tensor<?x32xf32>, !fm.weight<[64, 32], int4, group = 32> -> tensor<?x64xf32>
  fm.return %0 : tensor<?x64xf32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>, %rows: !fm.rows, %kv: !fm.state) -> tensor<?x32xf32> {
  // expected-error@+1 {{kv_format must be f32, f16, bf16 or int8}}
  %0 = fm.attention %x, %x, %x, %rows, %kv kv int4 {heads = 1 : i64, kv_heads = 1 : i64, scale = 1.0 : f64} : tensor<?x32xf32>, tensor<?x32xf32> -> tensor<?x32xf32>
  fm.return %0 : tensor<?x32xf32>
}

// -----

fm.param @p : !fm.weight<[32, 8], f32> {
  %0 = fm.source "m" at 0 as "f32" : !fm.weight<[48, 8], f32>
  // expected-error@+1 {{takes rows beyond the source's 48}}
  %1 = fm.slice_rows %0 from 17 : !fm.weight<[48, 8], f32> -> !fm.weight<[32, 8], f32>
  fm.yield %1 : !fm.weight<[32, 8], f32>
}

// -----

fm.param @p : !fm.weight<[32, 4], f32> {
  %0 = fm.source "m" at 0 as "f32" : !fm.weight<[48, 8], f32>
  // expected-error@+1 {{must keep the width}}
  %1 = fm.slice_rows %0 from 0 : !fm.weight<[48, 8], f32> -> !fm.weight<[32, 4], f32>
  fm.yield %1 : !fm.weight<[32, 4], f32>
}

// -----

fm.param @p : !fm.weight<[48, 8], f32> {
  %0 = fm.source "m" at 0 as "f32" : !fm.weight<[48, 8], f32>
  // expected-error@+1 {{must exchange outputs and inputs of a matrix}}
  %1 = fm.transpose %0 : !fm.weight<[48, 8], f32> -> !fm.weight<[48, 8], f32>
  fm.yield %1 : !fm.weight<[48, 8], f32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>, %n: !fm.weight<[32], f32>, %short: !fm.weight<[16], f32>) -> tensor<?x32xf32> {
  // expected-error@+1 {{bias must be !fm.weight<[32], f32>}}
  %0 = fm.layer_norm %x, %n, %short {epsilon = 1.0e-5 : f64} : tensor<?x32xf32>, !fm.weight<[32], f32>, !fm.weight<[16], f32> -> tensor<?x32xf32>
  fm.return %0 : tensor<?x32xf32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>, %n: !fm.weight<[32], f32>) -> tensor<?x32xf32> {
  // expected-error@+1 {{heads must divide the features}}
  %0 = fm.rms_norm %x, %n {epsilon = 1.0e-5 : f64, heads = 3 : i64} : tensor<?x32xf32>, !fm.weight<[32], f32> -> tensor<?x32xf32>
  fm.return %0 : tensor<?x32xf32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>, %n: !fm.weight<[32], f32>) -> tensor<?x32xf32> {
  // expected-error@+1 {{weight must be !fm.weight<[16], f32>}}
  %0 = fm.rms_norm %x, %n {epsilon = 1.0e-5 : f64, heads = 2 : i64} : tensor<?x32xf32>, !fm.weight<[32], f32> -> tensor<?x32xf32>
  fm.return %0 : tensor<?x32xf32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>) -> tensor<?x64xf32> {
  // expected-error@+1 {{must keep the number of features}}
  %0 = fm.activate silu %x : tensor<?x32xf32> -> tensor<?x64xf32>
  fm.return %0 : tensor<?x64xf32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>, %rows: !fm.rows, %t: !fm.weight<[64, 16], f32>) -> tensor<?x32xf32> {
  // expected-error@+1 {{the table's width must equal the features}}
  %0 = fm.position_embedding %x, %rows, %t : tensor<?x32xf32>, !fm.weight<[64, 16], f32>
  fm.return %0 : tensor<?x32xf32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>, %rows: !fm.rows) -> tensor<?x32xf32> {
  // expected-error@+1 {{needs 8 factors, one a pair}}
  %0 = fm.rotary %x, %rows {head_dim = 16 : i64, theta = 1.0e4 : f64, factors = array<f32: 1.0>} : tensor<?x32xf32>
  fm.return %0 : tensor<?x32xf32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>, %rows: !fm.rows, %t: !fm.weight<[16], f32>) -> tensor<?x32xf32> {
  // expected-error@+1 {{token must be !fm.weight<[32], f32>}}
  %0 = fm.class_token %x, %rows, %t : tensor<?x32xf32>, !fm.weight<[16], f32>
  fm.return %0 : tensor<?x32xf32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>, %v: !fm.weight<[16], f32>) -> tensor<?x32xf32> {
  // expected-error@+1 {{vector must be !fm.weight<[32], f32>}}
  %0 = fm.add_vector %x, %v : tensor<?x32xf32>, !fm.weight<[16], f32>
  fm.return %0 : tensor<?x32xf32>
}

// -----

fm.block @b(%x: tensor<?x32xf32>, %rows: !fm.rows, %state: !fm.state) -> tensor<?x32xf32> {
  // expected-error@+1 {{a bidirectional row sees its whole sequence; it has no window}}
  %0 = fm.attention %x, %x, %x, %rows, %state bidirectional {heads = 2 : i64, kv_heads = 2 : i64, scale = 0.25 : f64, sinks = 0 : i64, window = 8 : i64} : tensor<?x32xf32>, tensor<?x32xf32> -> tensor<?x32xf32>
  fm.return %0 : tensor<?x32xf32>
}

// -----

fm.block @rounded_twice(%x: tensor<?x32xbf16>) -> tensor<?x1x32xbf16> {
  // expected-error@+1 {{rows of bf16 are rounded already, and become int8 alone; give f32 rows}}
  %0 = fm.quantize_rows %x : tensor<?x32xbf16> -> tensor<?x1x32xbf16>
  fm.return %0 : tensor<?x1x32xbf16>
}
