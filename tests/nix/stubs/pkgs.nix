# A nixpkgs that has every package whose name stands in a file of nix/, and builds none. What the
# builders are given can be read back from what they give.
{ system }:

let
  lib = import ./lib.nix;

  package = name: {
    type = "derivation";
    inherit name;
    pname = name;
    outPath = "/stub/${name}";
    meta.mainProgram = name;
  };

  # Every word of the files, as any of them may be a package's name.
  words =
    files:
    builtins.filter (word: builtins.isString word && builtins.match "[a-z][A-Za-z0-9_-]*" word != null) (
      builtins.concatLists (map (file: builtins.split "[^A-Za-z0-9_-]+" (builtins.readFile file)) files)
    );
  named = lib.genAttrs (words [
    ../../../docs/nixos.md
    ../../../nix/host.nix
    ../../../nix/incus/guest.nix
    ../../../nix/incus/packages.nix
    ../../../nix/incus/run.nix
    ../../../nix/package.nix
    ../../../nix/shell.nix
    ../../../nix/tests/guest.nix
    ../../../nix/tests/host.nix
    ../../../nix/tests/runner.nix
    ../../../nix/tests/shellcheck.nix
  ]) package;

  built = name: arguments: package name // { inherit arguments; };

  pkgs = named // {
    inherit lib pkgs;
    stdenv.hostPlatform = {
      inherit system;
      parsed.cpu.name = builtins.head (builtins.split "-" system);
    };
    incus = package "incus" // {
      client = package "incus-client";
    };
    python3 = package "python3" // {
      withPackages = choose: built "python3-env" (choose pkgs.python3Packages);
    };
    python3Packages = named // {
      buildPythonApplication = arguments: built arguments.pname arguments // { inherit (arguments) meta; };
    };
    callPackage =
      file: extra:
      let
        function = import file;
      in
      function (builtins.intersectAttrs (builtins.functionArgs function) pkgs // extra);
    writeText = name: text: built name { inherit text; };
    # What it holds can be told from where it is.
    writeTextFile =
      arguments:
      built arguments.name arguments
      // {
        outPath = "/stub/${builtins.hashString "sha256" arguments.text}-${arguments.name}";
      };
    writeShellApplication = arguments: built arguments.name arguments // arguments.passthru or { };
    runCommand =
      name: environment: script:
      built name { inherit environment script; };
    mkShell = built "shell";
    testers.runNixOSTest =
      file:
      let
        test = import file;
        arguments = if builtins.isFunction test then test { inherit lib pkgs; } else test;
      in
      built arguments.name arguments;
  };
in
pkgs
