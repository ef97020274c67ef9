# The runner's own tests, which want root, mounts and namespaces: in a VM.
{ lib, pkgs, ... }:

let
  source = lib.fileset.toSource {
    root = ../..;
    fileset = lib.fileset.unions [
      ../../pyproject.toml
      ../../tests/__init__.py
      ../../tests/conftest.py
      ../../tests/runner
      ../guest
    ];
  };
in
{
  name = "pikaci-runner";

  nodes.machine = {
    virtualisation.memorySize = 2048;
    environment.systemPackages = with pkgs; [
      curl
      gcc
      (python3.withPackages (
        python: with python; [
          pytest
          pytest-trio
        ]
      ))
    ];
  };

  testScript = ''
    machine.wait_for_unit("multi-user.target")
    machine.succeed("cp -r ${source} /root/pikaci && cd /root/pikaci && python3 -m pytest tests/runner")
  '';
}
