# Tools for working on pikaci. The Python packages come from nixpkgs: on NixOS, most wheels that
# `make venv` installs would not start.
{
  mkShell,
  pikaci,
  pkgs,
}:

mkShell {
  inputsFrom = [ pikaci ];

  packages = with pkgs; [
    btrfs-progs
    chromedriver
    chromium
    curl
    git
    gnumake
    import-linter
    incus.client
    jq
    mmdebstrap
    nixfmt
    pyright
    ruff
    shellcheck
    # Not `with`: it would take a name that Python's packages lack from `pkgs`.
    (python3.withPackages (
      python:
      builtins.attrValues {
        inherit (python)
          apscheduler
          coverage
          distributed
          hypothesis
          jsonschema
          mypy
          pytest
          pytest-cov
          pytest-trio
          pytest-xdist
          pyte
          pyyaml
          schemathesis
          selenium
          setuptools
          types-jsonschema
          types-pyyaml
          ;
      }
    ))
  ];
}
