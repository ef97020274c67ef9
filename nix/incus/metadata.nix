# An image's metadata for Incus. nixpkgs makes such a file too, but cannot put the version of the
# guest contract into it.
{
  lib,
  runCommand,
  stdenv,
  writeText,
  kind,
  requirements ? { },
}:

let
  contract = import ../contract.nix;
  architecture = stdenv.hostPlatform.parsed.cpu.name;

  # JSON is valid YAML.
  metadata = writeText "metadata.yaml" (
    builtins.toJSON {
      inherit architecture;
      creation_date = 1;
      properties = {
        inherit architecture;
        os = "NixOS";
        release = lib.trivial.release;
        description = "pikaci guest, NixOS ${lib.trivial.release} (${kind})";
      }
      // lib.mapAttrs' (name: lib.nameValuePair "requirements.${name}") requirements
      // contract.imageProperties;
    }
  );
in
runCommand "pikaci-metadata" { } ''
  mkdir "$out"
  cp ${metadata} metadata.yaml
  tar --create --xz --file "$out/metadata.tar.xz" \
    --owner 0 --group 0 --numeric-owner --mode 0644 --mtime @1 metadata.yaml
''
