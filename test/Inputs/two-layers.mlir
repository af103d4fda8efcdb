// A model of two layers that the pass tests share.
fm.param @table : !fm.weight<[64, 32], f32> {
  %0 = fm.source "<seed>" at 1 as "f32" : !fm.weight<[64, 32], f32>
  fm.yield %0 : !fm.weight<[64, 32], f32>
}
fm.param @norm : !fm.weight<[32], f32> {
  %0 = fm.source "<seed>" at 2 as "f32" : !fm.weight<[32], f32>
  fm.yield %0 : !fm.weight<[32], f32>
}
fm.param @w0 : !fm.weight<[32, 32], f32> {
  %0 = fm.source "<seed>" at 3 as "f32" : !fm.weight<[32, 32], f32>
  fm.yield %0 : !fm.weight<[32, 32], f32>
}
fm.param @w1 : !fm.weight<[32, 32], f32> {
  %0 = fm.source "<seed>" at 4 as "f32" : !fm.weight<[32, 32], f32>
  fm.yield %0 : !fm.weight<[32, 32], f32>
}
fm.block @embed(%ids: tensor<?xi32>, %rows: !fm.rows, %t: !fm.weight<[64, 32], f32>) -> tensor<?x32xf32> {
  %0 = fm.embedding %ids, %t : tensor<?xi32>, !fm.weight<[64, 32], f32> -> tensor<?x32xf32>
  fm.return %0 : tensor<?x32xf32>
}
fm.block @layer(%x: tensor<?x32xf32>, %rows: !fm.rows, %kv: !fm.state, %n: !fm.weight<[32], f32>,
                %w: !fm.weight<[32, 32], f32>) -> tensor<?x32xf32> {
  %0 = fm.rms_norm %x, %n {epsilon = 1.0e-5 : f64} : tensor<?x32xf32>, !fm.weight<[32], f32> -> tensor<?x32xf32>
  %1 = fm.linear %0, %w : tensor<?x32xf32>, !fm.weight<[32, 32], f32> -> tensor<?x32xf32>
  %2 = fm.linear %0, %w : tensor<?x32xf32>, !fm.weight<[32, 32], f32> -> tensor<?x32xf32>
  %3 = fm.rotary %1, %rows {head_dim = 32 : i64, theta = 1.0e4 : f64} : tensor<?x32xf32>
  %4 = fm.attention %3, %2, %2, %rows, %kv {heads = 1 : i64, kv_heads = 1 : i64, scale = 0.25 : f64} : tensor<?x32xf32>, tensor<?x32xf32> -> tensor<?x32xf32>
  %5 = fm.add %x, %4 : tensor<?x32xf32>
  fm.return %5 : tensor<?x32xf32>
}
fm.block @head(%x: tensor<?x32xf32>, %rows: !fm.rows, %t: !fm.weight<[64, 32], f32>) -> tensor<?x64xf32> {
  %0 = fm.select_rows %x, %rows : tensor<?x32xf32>
  %1 = fm.linear %0, %t : tensor<?x32xf32>, !fm.weight<[64, 32], f32> -> tensor<?x64xf32>
  fm.return %1 : tensor<?x64xf32>
}
fm.program @main(%ids: tensor<?xi32>, %rows: !fm.rows) -> tensor<?x64xf32> attributes {fm.context_length = 128 : i64, fm.vocab_size = 64 : i64} {
  %0 = fm.call @embed(%ids, %rows) params [@table] : (tensor<?xi32>, !fm.rows) -> tensor<?x32xf32>
  %1 = fm.call @layer(%0, %rows) state 0 params [@norm, @w0] : (tensor<?x32xf32>, !fm.rows) -> tensor<?x32xf32>
  %2 = fm.call @layer(%1, %rows) state 1 params [@norm, @w1] : (tensor<?x32xf32>, !fm.rows) -> tensor<?x32xf32>
  %3 = fm.call @head(%2, %rows) params [@table] : (tensor<?x32xf32>, !fm.rows) -> tensor<?x64xf32>
  fm.return %3 : tensor<?x64xf32>
}
