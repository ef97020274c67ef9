# Runs the runner's own tests in a VM: they need root, mounts and namespaces.
{ lib, ... }:

let
  source = lib.fileset.toSource {
    root = ../..;
    fileset = lib.fileset.unions [
      ../../pyproject.toml
      ../../tests/__init__.py
      ../../tests/clock.py
      ../../tests/conftest.py
      ../../tests/runner
      ../guest
    ];
  };
in
{
  name = "pikaci-runner";

  nodes.machine =
    { pkgs, ... }:
    {
      virtualisation.memorySize = 2048;
      environment.systemPackages = with pkgs; [
        curl
        (python3.withPackages (
          python: with python; [
            anyio
            hypothesis
            pytest
            pytest-trio
          ]
        ))
      ];
    };

  testScript = ''
    machine.wait_for_unit("multi-user.target")
    machine.succeed("cp -r ${source} /root/pikaci")
    machine.succeed("cd /root/pikaci && python3 -m pytest -p no:cacheprovider tests/runner")
  '';
}
