# Prints what the innermost loops of assembly do: a line for each basic block that jumps
# back to itself. usage: awk -f loops.awk kernels.s
#   FUNCTION: N instructions, N dots, N fmas, N prefetches, N spills, N shuffles
function reset() { n = dots = fmas = prefetches = spills = shuffles = 0 }
/^[A-Za-z_][A-Za-z0-9_]*:/ { name = $1; sub("(_rows)?:", "", name); block = ""; reset(); next }
/^\.LBB[0-9_]+:/ { block = $1; sub(":.*", "", block); reset(); next }
/^\t[a-z{]/ {
  ++n
  sub(/[{]vex[}][ \t]+/, "") # an encoding, not an instruction
  if ($1 ~ /^(vpdpbusd|vpdpwssd|vpmaddubsw|sdot|usdot|smmla|tdpbssd|tdpbf16ps)$/) ++dots
  if ($1 ~ /^(vfmadd|fmla|vdpbf16ps)/) ++fmas
  if ($1 ~ /^(prefetch|prfm)/) ++prefetches
  if ($0 ~ /\(%rsp\)|\[sp/) ++spills
  if ($1 ~ /^(vperm|vpshuf|vpunpck|vpack|vinsert|vextract|vpalign|vshuf|tbl|zip|uzp|trn|ext)/) ++shuffles
  if ($1 ~ /^(j[a-z]+|b\.[a-z]+|cbnz|cbz|tbnz|tbz)$/ && $NF == block)
    printf "%s: %d instructions, %d dots, %d fmas, %d prefetches, %d spills, %d shuffles\n",
      name, n, dots, fmas, prefetches, spills, shuffles
}
