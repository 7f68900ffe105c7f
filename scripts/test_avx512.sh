#!/usr/bin/env bash
# Runs the C tests (Tests/CTests) on AVX-512 where the processor has none: on PCs emulated whole by Bochs, under Debian's kernel.
#   scripts/test_avx512.sh [NAME...]   the checks whose name contains one of them; without any, every one, and the
#                                      elementary functions at every 4099th f32
# Minutes for a few checks. All of them took 25 with version 3 on two busy cores; Debian's 2.7 is three to four times slower.
# QUERN_BOCHS is the path of another Bochs than Debian's: version 3, which also rounds to f16 as processors do, where 2.7 has
# ties wrong. To build one, in the folder `bochs` of its sources (github.com/bochs-emu/Bochs):
#   ./configure --enable-x86-64 --enable-avx --enable-evex --enable-repeat-speedups --enable-fast-function-calls
#     --enable-handlers-chaining --with-nogui --without-x && make
# A check that fails here and on the emulated processor's AVX2 as well is laid to the emulator: `make test` and
# `make test-cpus` hold AVX2 to the same checks on a processor. Products lie in .build-c.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "test_avx512: $*" >&2; }
skip() { say "skipped: $*"; exit 0; }
die() { say "$@"; exit 1; }

readonly folder=.build-c/avx512 seconds=14400
readonly bios=/usr/share/bochs/BIOS-bochs-latest vga=/usr/share/vgabios/vgabios.bin
readonly loader=/usr/lib/ISOLINUX/isolinux.bin menu=/usr/lib/syslinux/modules/bios/ldlinux.c32

# The kernel is unpacked, not installed: installing one would change what this machine boots.
kernel() {
  [[ ! -s $folder/vmlinuz ]] || return 0
  local package
  package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -nE 's/.*Depends: (linux-image-[0-9][^ ]*)$/\1/p' | head -n 1)
  [[ -n $package ]] || skip "this system has no package linux-image-cloud-amd64; Debian has"
  rm -rf "$folder/package" && mkdir -p "$folder/package"
  say "unpacking $package"
  (cd "$folder/package" && apt-get -qq -o APT::Sandbox::User=root download "$package" && dpkg-deb -x ./*.deb .) >&2 ||
    skip "apt-get could not download $package"
  mv "$folder"/package/boot/vmlinuz-* "$folder/vmlinuz"
  rm -rf "$folder/package"
}

# machine NAME COMMAND...: boots a PC that runs the command; its output is $folder/NAME/output, its status is returned.
machine() {
  local at=$folder/$1 root=$folder/$1/root iso=$folder/$1/iso
  shift
  rm -rf "$at" && mkdir -p "$root/bin" "$iso"
  cp "$(command -v busybox)" "$root/bin/busybox"
  cp .build-c/ctests-native .build-c/exhaustive-native "$root"
  {
    echo '#!/bin/busybox sh'
    echo '/bin/busybox --install -s /bin'
    echo 'mkdir -p /proc && mount -t proc proc /proc && mount -t devtmpfs dev /dev'
    echo 'exec </dev/ttyS0 >/dev/ttyS0 2>&1'
    echo 'stty -opost'
    echo 'echo BEGIN'
    echo "$*"
    echo 'echo "EXIT $?"'
    echo 'while true; do sleep 1000; done'
  } >"$root/init"
  chmod +x "$root/init"
  (cd "$root" && find . | cpio --quiet -o -H newc) >"$iso/initrd"
  cp "$folder/vmlinuz" "$loader" "$menu" "$iso"
  # Bochs 2.7 gets the size of compacted register state wrong, and then the kernel allows no AVX at all.
  cat >"$iso/isolinux.cfg" <<-END
	default linux
	label linux
	  kernel vmlinuz
	  append initrd=initrd console=ttyS0 quiet mitigations=off acpi=off nosmp lpj=1000000 tsc=reliable noxsaves clearcpuid=xsavec,fsrm
	END
  xorriso -as mkisofs -quiet -o "$at/boot.iso" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 \
    -boot-info-table "$iso" >"$at/xorriso.log" 2>&1
  cat >"$at/bochsrc" <<-END
	config_interface: textconfig
	display_library: $([[ -n ${QUERN_BOCHS:-} ]] && echo nogui || echo term)
	cpu: model=corei7_skylake_x, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=1
	memory: guest=512, host=512
	romimage: file=$bios
	vgaromimage: file=$vga
	ata0-master: type=cdrom, path=$at/boot.iso, status=inserted
	boot: cdrom
	com1: enabled=1, mode=file, dev=$at/serial
	log: $at/bochs.log
	panic: action=fatal
	error: action=ignore
	info: action=ignore
	END
  : >"$at/serial"
  # Debian's Bochs starts in its debugger, and draws its screen on a terminal.
  local command="exec ${QUERN_BOCHS:-bochs-bin} -q -f $at/bochsrc"
  [[ -n ${QUERN_BOCHS:-} ]] || { printf 'continue\nquit\n' >"$at/debugger" && command+=" -rc $at/debugger"; }
  TERM=linux timeout "$seconds" script -qec "$command" /dev/null >"$at/screen" 2>&1 </dev/null &
  local emulator=$! status
  while kill -0 "$emulator" 2>/dev/null && ! grep -q '^EXIT ' "$at/serial"; do sleep 1; done
  kill "$emulator" 2>/dev/null || true
  wait "$emulator" 2>/dev/null || true
  sed -e '1,/^BEGIN/d' -e '/^EXIT /,$d' "$at/serial" >"$at/output"
  status=$(sed -nE 's/^EXIT ([0-9]+).*/\1/p' "$at/serial" | head -n 1)
  [[ -n $status ]] || { say "$at: the machine did not finish:" && tail -n 15 "$at/serial" "$at/bochs.log" >&2; }
  return "${status:-125}"
}

failures() { sed -nE "s/^$2 (\\w+): [0-9]+ failures.*/\\1/p" "$folder/$1/output" | sort -u; }  # MACHINE ISA

[[ $(uname -sm) == "Linux x86_64" ]] || skip "the programs are x86-64's, and this is $(uname -sm)"
command -v apt-get >/dev/null || skip "the kernel and the boot loader are Debian's packages, and there is no apt-get"
packages=(bochsbios vgabios isolinux syslinux-common xorriso busybox-static cpio)
[[ -n ${QUERN_BOCHS:-} ]] || packages+=(bochs bochs-term)
scripts/bootstrap.sh --only "${packages[@]}"
models=$("${QUERN_BOCHS:-bochs-bin}" --help cpu 2>&1) || true
[[ $models == *corei7_skylake_x* ]] || skip "this Bochs has no processor with AVX-512 (corei7_skylake_x); QUERN_BOCHS names another"
mkdir -p "$folder"
kernel
scripts/test_c.sh build

# As many machines as there are cores, and the checks dealt out among them.
running=()
start() {
  say "$folder/$1: ${*:2}"
  machine "$@" &
  running+=("$1:$!")
}
names=("$@")
# `f32_rope` means `ck_f32_rope` as well.
[[ $# -gt 0 ]] || mapfile -t names < <(sed -nE 's/^(ROWS|CHECK)\((\w+),.*/\2/p' Tests/CTests/checks.inc |
  awk '{ all[$0] } END { for (name in all) if (!(substr(name, 4) in all)) print name }' | sort)
count=$(nproc)
[[ $count -le ${#names[@]} ]] || count=${#names[@]}
for ((k = 0; k < count; k++)); do
  own=()
  for ((c = k; c < ${#names[@]}; c += count)); do own+=("${names[c]}"); done
  start "checks-$k" /ctests-native --expect avx512 "${own[@]}"
done
[[ $# -gt 0 ]] || start exhaustive "/exhaustive-native --every 4099 2>/dev/null"

failed=() broken=()
for pair in "${running[@]}"; do
  status=0
  wait "${pair#*:}" || status=$?
  cat "$folder/${pair%:*}/output"
  mapfile -t -O "${#failed[@]}" failed < <(failures "${pair%:*}" avx512)
  [[ $status == 0 || $status == 1 && -n $(failures "${pair%:*}" avx512) ]] || broken+=("${pair%:*} (status $status)")
done
[[ ${#broken[@]} -eq 0 ]] || die "failed: ${broken[*]}"
if [[ ${#failed[@]} -gt 0 ]]; then
  start avx2 QUERN_MAX_ISA=avx2 /ctests-native --expect avx2 "${failed[@]}"
  wait "${running[-1]#*:}" || true
  cat "$folder/avx2/output"
  mapfile -t own < <(comm -23 <(printf '%s\n' "${failed[@]}" | sort -u) <(failures avx2 avx2))
  [[ ${#own[@]} -eq 0 ]] || die "failed on AVX-512 alone: ${own[*]}"
  say "laid to the emulator, as they fail on its AVX2 too: ${failed[*]}"
fi
say "passed"
