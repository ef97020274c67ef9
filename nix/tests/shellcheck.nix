# Checks the shell files of a guest, as `make lint` does.
{ runCommand, shellcheck }:

runCommand "pikaci-shellcheck" { nativeBuildInputs = [ shellcheck ]; } ''
  cd ${../guest}
  shellcheck init initrd-init pikaci-deadline pikaci-incus-run pikaci-ready
  touch "$out"
''
