; A guest of QEMU without an operating system: for each case it stores tables, has the unit use them, and lets the
; device `edu` at 00:03.0 move eight bytes.  What came of it goes to the debug port.  The cases follow the code.
bits 32
org 0x100000

%define UNIT 0xFED90000
%define PATTERN 0x80000
%define RESULT 0x80010
%define BUFFER 0x40000          ; in the device

header:
    dd 0x1BADB002, 0x00010000, -(0x1BADB002 + 0x00010000)
    dd header, header, 0, 0, entry

entry:
    cli
    mov esp, 0x90000
    mov eax, cr0
    and eax, ~0xC
    mov cr0, eax
    mov eax, 0x80001804         ; command: memory, bus master
    mov ebx, 6
    call configure
    mov eax, 0x80001810         ; BAR 0
    mov dx, 0xCF8
    out dx, eax
    mov dx, 0xCFC
    in eax, dx
    and eax, ~0xF
    mov [bar], eax
    mov eax, [UNIT + 0x08]
    call tell
    mov eax, [UNIT + 0x0C]
    call tell
    mov eax, [UNIT + 0x10]
    call tell
    mov eax, [UNIT + 0x14]
    call tell
    mov esi, cases
    lodsd
    mov [left], eax
next:
    cmp dword [left], 0
    je done
    dec dword [left]
    lodsd
    mov ecx, eax
stores:
    jecxz stored
    lodsd
    mov edi, eax
    lodsd
    mov [edi], eax
    lodsd
    mov [edi + 4], eax
    dec ecx
    jmp stores
stored:
    lodsd
    mov [address], eax
    lodsd
    mov [address + 4], eax
    lodsd
    mov [direction], eax
    lodsd
    mov [probe], eax
    lodsd
    mov [root], eax
    lodsd
    mov [root + 4], eax
    cmp dword [direction], 0
    je on
    mov ebx, pattern_place      ; the pattern into the device
    mov ecx, buffer_place
    mov edx, 1
    call move
on:
    mov edi, UNIT + 0x20        ; root table
    movq mm0, [root]
    movq [edi], mm0
    mov dword [UNIT + 0x18], 1 << 30
.pointer:
    test dword [UNIT + 0x1C], 1 << 30
    jz .pointer
    mov dword [UNIT + 0x2C], 0xA0000000   ; contexts, all
.contexts:
    test dword [UNIT + 0x2C], 1 << 31
    jnz .contexts
    mov dword [UNIT + 0xFC], 0x90000000   ; translations, all
.translations:
    test dword [UNIT + 0xFC], 1 << 31
    jnz .translations
    mov dword [UNIT + 0x18], 1 << 31
.enabled:
    test dword [UNIT + 0x1C], 1 << 31
    jz .enabled
    mov ebx, address
    mov ecx, buffer_place
    mov edx, 1
    cmp dword [direction], 0
    je .go
    mov ebx, buffer_place
    mov ecx, address
    mov edx, 3
.go:
    call move
    mov dword [UNIT + 0x18], 0
.disabled:
    test dword [UNIT + 0x1C], 1 << 31
    jnz .disabled
    mov eax, [UNIT + 0x34]
    call tell
    mov eax, [UNIT + 0x220]
    call tell
    mov eax, [UNIT + 0x224]
    call tell
    mov eax, [UNIT + 0x228]
    call tell
    mov eax, [UNIT + 0x22C]
    call tell
    mov dword [UNIT + 0x22C], 1 << 31
    mov dword [UNIT + 0x34], 1
    cmp dword [direction], 0
    jne .written
    mov ebx, buffer_place
    mov ecx, result_place
    mov edx, 3
    call move
    mov ebx, RESULT
    jmp .told
.written:
    mov ebx, [probe]
.told:
    mov eax, [ebx]
    call tell
    mov eax, [ebx + 4]
    call tell
    jmp next
done:
    mov dx, 0xF4
    mov al, 0
    out dx, al
    hlt
    jmp done

configure:                      ; configuration dword eax := ebx
    mov dx, 0xCF8
    out dx, eax
    mov eax, ebx
    mov dx, 0xCFC
    out dx, eax
    ret

move:                           ; from the address at ebx to that at ecx; edx is the command
    mov edi, [bar]
    movq mm0, [ebx]
    movq [edi + 0x80], mm0
    movq mm0, [ecx]
    movq [edi + 0x88], mm0
    movq mm0, [eight]
    movq [edi + 0x90], mm0
    mov [command], edx
    movq mm0, [command]
    movq [edi + 0x98], mm0
.wait:
    mov ecx, 20000
.spin:
    loop .spin
    test dword [edi + 0x98], 1
    jnz .wait
    ret

tell:                           ; eax to the debug port, its low byte first
    mov ecx, 4
.byte:
    out 0xE9, al
    shr eax, 8
    loop .byte
    ret

align 8
address: dq 0
root: dq 0
command: dq 0
eight: dq 8
pattern_place: dq PATTERN
buffer_place: dq BUFFER
result_place: dq RESULT
bar: dd 0
left: dd 0
direction: dd 0
probe: dd 0
align 4
cases:
