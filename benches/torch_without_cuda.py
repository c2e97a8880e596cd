"""Makes PyTorch's wheel importable without the 3 GB of CUDA libraries that it is linked to, and that its
processor part never calls: beside its own libraries it puts empty ones of their names, whose functions
all fail. Does nothing where torch can be imported already. Needs readelf and a C compiler.
"""
import collections
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile


def readelf(option, file):
    return subprocess.run(["readelf", "-W", option, file], check=True, capture_output=True, text=True).stdout


def stubs(folder):
    """For each missing library, by version, the functions that are wanted of it."""
    files = [file for file in folder.glob("*.so*") if file.name != "libtorch_cuda_linalg.so"]
    own, wanted = set(), collections.defaultdict(lambda: collections.defaultdict(set))
    versions, loose = {}, set()
    for file in files:
        needed = re.findall(r"NEEDED.*\[(.*)\]", readelf("-d", file))
        for name in needed:
            if re.match(r"lib(cu|nv|nccl)", name) and not (folder / name).exists():
                wanted[name]
        for part in readelf("-V", file).split("  File: ")[1:]:
            library = part.split()[0]
            versions.update({name: library for name in re.findall(r"Name: (\S+)", part)})
        for line in readelf("--dyn-syms", file).splitlines():
            fields = line.split()
            if len(fields) < 8 or not fields[0].endswith(":"):
                continue
            name, _, version = fields[7].partition("@")
            if fields[6] != "UND":
                own.add(name)
            elif versions.get(version) in wanted:
                wanted[versions[version]][version].add(name)
            elif not version and fields[4] == "GLOBAL":
                loose.add(name)
    for library in wanted:
        wanted[library][""]
    if wanted:
        wanted[min(wanted)][""] |= loose - own
    return wanted


def build(library, versions, folder):
    with tempfile.TemporaryDirectory() as scratch:
        code, script = pathlib.Path(scratch, "stub.c"), pathlib.Path(scratch, "stub.map")
        names = sorted(set().union(*versions.values()))
        # 100 is cudaErrorNoDevice.
        code.write_text("".join(f"long {name}(void) {{ return 100; }}\n" for name in names))
        nodes = {version: names for version, names in versions.items() if version}
        script.write_text("".join(f"{v} {{ {''.join(n + '; ' for n in sorted(s))} }};\n" for v, s in nodes.items()))
        versioned = [f"-Wl,--version-script={script}"] if nodes else []
        subprocess.run(
            [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{library}",
             *versioned, "-o", folder / library, code], check=True)


def importable():
    return subprocess.run([sys.executable, "-c", "import torch"], capture_output=True).returncode == 0


def main():
    if importable():
        return
    folder = pathlib.Path(importlib.util.find_spec("torch").origin).parent / "lib"
    for library, versions in stubs(folder).items():
        build(library, versions, folder)
    subprocess.run([sys.executable, "-W", "ignore", "-c", "import torch"], check=True)


if __name__ == "__main__":
    main()
