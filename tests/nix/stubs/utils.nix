# As much of NixOS's own utils as nix/ uses: an argument for systemd, which takes JSON's quotes and
# escapes, and expands `%` and `$` within them too.
{ lib }:

rec {
  escapeSystemdExecArg =
    argument: lib.replaceStrings [ "%" "$" ] [ "%%" "$$" ] (builtins.toJSON "${toString argument}");
  escapeSystemdExecArgs = arguments: builtins.concatStringsSep " " (map escapeSystemdExecArg arguments);
}
