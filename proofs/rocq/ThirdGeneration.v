(** * The third generation machine (section 2 of the paper)

    A state is <E, M, P, R>: executable storage, mode, program counter, relocation-bounds register.
    The paper fixes the shape of states, how references are relocated and how a trap exchanges program
    status words; it leaves the instruction set open.  So does this file.

    Choices:
    - Storage is a list, so that one semantics serves the real machine (q locations) and each virtual
      one (w < q): an instruction is a function on states with storage of any size, which it keeps.
    - Numbers are natural: no sum wraps.  A machine with words of fixed width is asked the premises of
      [Premises.v] with its own arithmetic; nothing here is about it.
    - A trap changes nothing before the exchange and stores P as it was, as the paper has it. *)

From Coq Require Import List Arith Lia.
Require Import Popek.Machine.
Import ListNotations.

Inductive mode : Type := supervisor | user.

(** R = (l, b): a reference a goes to location l + a, provided that a < b. *)
Record relocation : Type := Rel { l : nat; b : nat }.

(** What the paper calls the PSW. *)
Record psw : Type := Psw { psw_M : mode; psw_P : nat; psw_R : relocation }.

Record storage_state (word : Type) : Type := St { E : list word; M : mode; P : nat; R : relocation }.
Arguments St {word}.
Arguments E {word}.
Arguments M {word}.
Arguments P {word}.
Arguments R {word}.

Inductive trap_cause : Type :=
| memory_trap  (* a reference beyond the bound or beyond storage *)
| other_trap.  (* a privileged instruction in user mode, a supervisor call, … *)

Inductive ending (word : Type) : Type :=
| Completes (T : storage_state word)
| Traps (c : trap_cause).
Arguments Completes {word}.
Arguments Traps {word}.

Record third_generation : Type := {
  word : Type;
  word_dec : forall x y : word, {x = y} + {x <> y};
  blank : word;                     (* some word *)
  of_psw : psw -> word;             (* a PSW fits into one word, *)
  to_psw : word -> psw;
  to_of : forall p, to_psw (of_psw p) = p;  (* and is read back as it was stored *)
  opcode : Type;
  decode : word -> opcode;
  execute : opcode -> storage_state word -> ending word;
  keeps_size : forall i S T, execute i S = Completes T -> length (E T) = length (E S)
}.

Definition status {word} (S : storage_state word) : psw := Psw (M S) (P S) (R S).

(** The storage in reach: the paper's E|r, cut where storage ends. *)
Definition view {A} (r : relocation) (e : list A) : list A := firstn (b r) (skipn (l r) e).

(** Storage before and behind what is in reach. *)
Definition before {A} (r : relocation) (e : list A) : list A := firstn (l r) e.
Definition behind_view {A} (r : relocation) (e : list A) : list A := skipn (l r + b r) e.

Definition set {A} (n : nat) (x : A) (e : list A) : list A :=
  match skipn n e with [] => e | _ :: rest => firstn n e ++ x :: rest end.

(** E[0] := PSW, PSW := E[1]. *)
Definition exchange (t : third_generation) (S : storage_state (word t)) : storage_state (word t) :=
  let new := to_psw t (nth 1 (E S) (blank t)) in
  St (set 0 (of_psw t (status S)) (E S)) (psw_M new) (psw_P new) (psw_R new).

(** The paper's machine as a machine: it fetches from the relocated program counter. *)
Definition machine_of (t : third_generation) : machine := {|
  state := storage_state (word t);
  instruction := opcode t;
  cause := trap_cause;
  fetch := fun S => match nth_error (view (R S) (E S)) (P S) with
                    | Some x => inr (decode t x)
                    | None => inl memory_trap
                    end;
  perform := fun i S => match execute t i S with
                        | Completes T => Next T
                        | Traps c => Trap c S
                        end;
  deliver := fun _ S => exchange t S
|}.

(** ** What the lists are for *)

Lemma skipn_add {A} n k (e : list A) : skipn (n + k) e = skipn k (skipn n e).
Proof. revert e. induction n as [| n IH]; [reflexivity |]. intros [| x e]; simpl; [now rewrite skipn_nil | apply IH]. Qed.

Lemma split_view {A} (r : relocation) (e : list A) :
  e = before r e ++ view r e ++ behind_view r e.
Proof.
  unfold before, view, behind_view.
  rewrite skipn_add, firstn_skipn, firstn_skipn. reflexivity.
Qed.

(** Putting something of the same size in reach changes that and nothing else. *)
Definition replace_view {A} (r : relocation) (v e : list A) : list A :=
  before r e ++ v ++ behind_view r e.

Lemma replaced {A} (r : relocation) (v e : list A) : length v = length (view r e) ->
  before r (replace_view r v e) = before r e /\ view r (replace_view r v e) = v /\
  behind_view r (replace_view r v e) = behind_view r e /\ length (replace_view r v e) = length e.
Proof.
  intros LenV. assert (length (replace_view r v e) = length e) as Len.
  { unfold replace_view. rewrite (split_view r e) at 3. rewrite !app_length. lia. }
  rewrite Len. clear Len. unfold replace_view.
  assert (length e <= l r + b r -> behind_view r e = []) as NoTail by (intros; now apply skipn_all2).
  set (tail := behind_view r e) in *. clearbody tail.
  revert LenV. unfold before, behind_view, view. rewrite firstn_length, skipn_length. intros LenV.
  destruct (le_lt_dec (l r) (length e)) as [In | Out].
  - assert (length (firstn (l r) e) = l r) as L1 by (rewrite firstn_length; lia).
    assert (skipn (l r) (firstn (l r) e ++ v ++ tail) = v ++ tail) as Skip.
    { rewrite skipn_app, L1, Nat.sub_diag, skipn_all2 by lia. reflexivity. }
    rewrite skipn_add, Skip. split.
    { rewrite firstn_app, L1, Nat.sub_diag. cbn [firstn]. rewrite app_nil_r.
      rewrite firstn_all2 by lia. reflexivity. }
    destruct (le_lt_dec (b r) (length e - l r)).
    + assert (length v = b r) as Lv by lia. rewrite <- Lv.
      rewrite firstn_app, skipn_app, firstn_all, skipn_all, Nat.sub_diag.
      cbn [firstn skipn app]. now rewrite app_nil_r.
    + rewrite NoTail by lia. rewrite app_nil_r, firstn_all2, skipn_all2 by lia. auto.
  - assert (v = []) as -> by (apply length_zero_iff_nil; lia).
    rewrite NoTail by lia. rewrite !app_nil_r.
    rewrite (firstn_all2 e) by lia. rewrite (firstn_all2 e) by lia.
    rewrite !skipn_all2 by lia. now rewrite firstn_nil.
Qed.

Lemma set_length {A} n (x : A) e : length (set n x e) = length e.
Proof.
  unfold set. destruct (skipn n e) eqn:H; [reflexivity |].
  rewrite app_length. simpl. rewrite firstn_length.
  assert (length (skipn n e) = Datatypes.S (length l0)) by now rewrite H.
  rewrite skipn_length in H0. lia.
Qed.

Lemma exchange_length t (S : storage_state (word t)) : length (E (exchange t S)) = length (E S).
Proof. apply set_length. Qed.

(** Every step keeps the size of storage. *)
Lemma step_length t (S : state (machine_of t)) : length (E (step (machine_of t) S)) = length (E S).
Proof.
  unfold step. simpl. destruct (nth_error _ _); [| apply exchange_length].
  destruct (execute t _ S) eqn:X; [now apply keeps_size in X | apply exchange_length].
Qed.
