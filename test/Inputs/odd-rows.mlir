// Rows with one scale that 32 does not divide.
fm.block @odd(%x: tensor<?x48xf32>, %w: !fm.weight<[16, 48], int8, group = 48>) -> tensor<?x16xf32> {
  %0 = fm.quantize_rows %x : tensor<?x48xf32> -> !fm.qrows<48, group = 48>
  %1 = fm.linear %0, %w : !fm.qrows<48, group = 48>, !fm.weight<[16, 48], int8, group = 48> -> tensor<?x16xf32>
  fm.return %1 : tensor<?x16xf32>
}
