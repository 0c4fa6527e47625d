(** * Instance: a third generation machine with an instruction of every class

    The machine that popek calls pg74.  Each sensitive instruction has a strap: on, it traps in user mode;
    off, it is silent there, as some real machine's was.  With every strap on, Theorem 1 holds of it, with
    nothing left open ([paper_machine_hosts]).  The straps serve the other instances and the
    counter-machines as well.

    An instruction is given by what it does with what it sees: mode, relocation, storage in reach, P.
    [None] is a memory trap. *)

From Coq Require Import List Arith Lia Bool.
Require Import Popek.Machine Popek.ThirdGeneration Popek.Classes Popek.Map.
Require Import Popek.Premises Popek.Monitor Popek.Runs Popek.Theorem1.
Require Import Popek.Interrupts Popek.HeldOff.
Import ListNotations.

(** A word is a PSW, or an instruction, or three numbers, as it is looked at. *)
Inductive cell : Type := Word (mark : mode) (x y z : nat).

Definition cell_dec (c d : cell) : {c = d} + {c <> d}.
Proof. decide equality; try apply Nat.eq_dec. apply mode_dec. Defined.

Definition cell_of (q : psw) : cell := Word (psw_M q) (psw_P q) (l (psw_R q)) (b (psw_R q)).
Definition psw_in (c : cell) : psw := match c with Word m x y z => Psw m x (Rel y z) end.

Lemma psw_in_cell_of q : psw_in (cell_of q) = q.
Proof. now destruct q as [m x []]. Qed.

Inductive op : Type :=
| MOVE (a b : nat)   (* E[a] := E[b] *)
| ADD (a b : nat)    (* E[a] := E[a] + E[b] *)
| JUMP (a : nat)     (* P := a *)
| JZERO (a b : nat)  (* P := a if E[b] = 0 *)
| SVC                (* traps in both modes *)
| LPSW (a : nat)     (* M, P, R := E[a]; silent: P alone, as PDP-11 RTI keeps the mode *)
| SREL (a : nat)     (* R := E[a]; silent: nothing, as PDP-11 RESET *)
| GREL (a : nat)     (* E[a] := R, as IA-32 SGDT reads a table register *)
| GMODE (a : nat)    (* E[a] := M, as IA-32 PUSH CS shows the ring *)
| LRA (a b : nat)    (* E[a] := real address of b, as S/360-67 LRA *)
| DROP (a : nat).    (* M := user and P := a, as PDP-10 JRST 1; silent: a jump *)

Definition op_of (c : cell) : op :=
  match c with
  | Word _ 0 a b => MOVE a b
  | Word _ 1 a b => ADD a b
  | Word _ 2 a _ => JUMP a
  | Word _ 3 a b => JZERO a b
  | Word _ 4 a _ => LPSW a
  | Word _ 5 a _ => SREL a
  | Word _ 6 a _ => GREL a
  | Word _ 7 a _ => GMODE a
  | Word _ 8 a b => LRA a b
  | Word _ 9 a _ => DROP a
  | _ => SVC
  end.

Definition is_strapped (i : op) : bool :=
  match i with LPSW _ | SREL _ | GREL _ | GMODE _ | LRA _ _ | DROP _ => true | _ => false end.

Definition sum (c d : cell) : cell :=
  match c, d with Word m x y z, Word _ x' y' z' => Word m (x + x') (y + y') (z + z') end.
Definition is_zero (c : cell) : bool := match c with Word _ 0 0 0 => true | _ => false end.

Definition store (a : nat) (x : cell) (v : list cell) (q : psw) : option (list cell * psw) :=
  if a <? length v then Some (set a x v, q) else None.

Definition does (i : op) (m : mode) (r : relocation) (v : list cell) (p : nat) : option (list cell * psw) :=
  let next := Psw m (p + 1) r in
  match i with
  | MOVE a b => match nth_error v b with Some x => store a x v next | None => None end
  | ADD a b => match nth_error v a, nth_error v b with
               | Some x, Some y => store a (sum x y) v next
               | _, _ => None
               end
  | JUMP a => Some (v, Psw m a r)
  | JZERO a b => match nth_error v b with
                 | Some x => Some (v, if is_zero x then Psw m a r else next)
                 | None => None
                 end
  | SVC => None
  | LPSW a => match nth_error v a with
              | Some x => Some (v, match m with user => Psw m (psw_P (psw_in x)) r | supervisor => psw_in x end)
              | None => None
              end
  | SREL a => match nth_error v a with
              | Some x => Some (v, match m with user => next | supervisor => Psw m (p + 1) (psw_R (psw_in x)) end)
              | None => None
              end
  | GREL a => store a (Word supervisor 0 (l r) (b r)) v next
  | GMODE a => store a (Word m 0 0 0) v next
  | LRA a b => if b <? length v then store a (Word supervisor (l r + b) 0 0) v next else None
  | DROP a => Some (v, Psw user a r)
  end.

Definition is_svc (i : op) : bool := match i with SVC => true | _ => false end.

Section Straps.
  Variable strap : op -> bool.   (* on: traps in user mode *)

  Definition traps_first (i : op) (m : mode) : bool := is_svc i || is_user m && is_strapped i && strap i.

  Definition run_op (i : op) (S : storage_state cell) : ending cell :=
    if traps_first i (M S) then Traps other_trap else
    match does i (M S) (R S) (view (R S) (E S)) (P S) with
    | None => Traps memory_trap
    | Some (v, q) => Completes (St (replace_view (R S) v (E S)) (psw_M q) (psw_P q) (psw_R q))
    end.

  Lemma store_some a x v q v' q' : store a x v q = Some (v', q') -> a < length v /\ v' = set a x v /\ q' = q.
  Proof.
    unfold store. destruct (Nat.ltb_spec a (length v)); intros H'; inversion H'; auto.
  Qed.

  Ltac cases :=
    repeat match goal with
    | H : Some _ = Some _ |- _ => inversion H; clear H; subst
    | H : None = Some _ |- _ => discriminate H
    | H : store _ _ _ _ = Some _ |- _ => apply store_some in H; destruct H as (? & ? & ?); subst
    | H : context [match nth_error ?v ?n with _ => _ end] |- _ => destruct (nth_error v n) eqn:?
    | H : (if ?c then _ else _) = Some _ |- _ => destruct c eqn:?
    end.

  Lemma does_keeps_length i m r v p v' q : does i m r v p = Some (v', q) -> length v' = length v.
  Proof. destruct i; cbn; intros H; cases; try reflexivity; apply set_length. Qed.

  Lemma run_op_completes i S T : run_op i S = Completes T ->
    traps_first i (M S) = false /\
    exists v q, does i (M S) (R S) (view (R S) (E S)) (P S) = Some (v, q) /\
      length v = length (view (R S) (E S)) /\
      T = St (replace_view (R S) v (E S)) (psw_M q) (psw_P q) (psw_R q).
  Proof.
    unfold run_op. destruct (traps_first i (M S)); [discriminate |].
    destruct (does _ _ _ _ _) as [[v q] |] eqn:D; [| discriminate].
    intros H. injection H as <-. split; [easy |]. exists v, q.
    split; [easy |]. split; [now apply does_keeps_length in D | easy].
  Qed.

  Lemma run_op_memory i S : run_op i S = Traps memory_trap ->
    does i (M S) (R S) (view (R S) (E S)) (P S) = None.
  Proof.
    unfold run_op. destruct (traps_first i (M S)); [discriminate |].
    destruct (does _ _ _ _ _) as [[v q] |]; [discriminate | easy].
  Qed.

  Lemma run_op_other i S : run_op i S = Traps other_trap -> traps_first i (M S) = true.
  Proof.
    unfold run_op. destruct (traps_first i (M S)); [easy |].
    now destruct (does _ _ _ _ _) as [[v q] |].
  Qed.

  Lemma run_op_does i S v q : traps_first i (M S) = false ->
    does i (M S) (R S) (view (R S) (E S)) (P S) = Some (v, q) -> exists T, run_op i S = Completes T.
  Proof. unfold run_op. intros -> ->. eauto. Qed.

  Lemma run_op_size i S T : run_op i S = Completes T -> length (E T) = length (E S).
  Proof.
    intros H. apply run_op_completes in H. destruct H as (_ & v & q & _ & Len & ->). cbn [E].
    now apply replaced.
  Qed.

  Definition pg : third_generation := {|
    word := cell; word_dec := cell_dec; blank := Word supervisor 0 0 0;
    of_psw := cell_of; to_psw := psw_in; to_of := psw_in_cell_of;
    opcode := op; decode := op_of; execute := run_op; keeps_size := run_op_size
  |}.

  (** R, T and K hold whatever the straps: every reference is relocated and checked, in both modes. *)

  Lemma memory_traps_alike i m r m' r' v p :
    does i m r v p = None -> does i m' r' v p = None.
  Proof.
    destruct i; cbn; unfold store; intros H;
      repeat match goal with
      | |- context [nth_error ?v ?n] => destruct (nth_error v n)
      | |- context [if ?c then _ else _] => destruct c
      end; try discriminate H; reflexivity.
  Qed.

  Lemma pg_R : references_relocated pg.
  Proof.
    intros i S T S' U X [Hp Hv] Y. apply run_op_completes in X. destruct X as (_ & v & q & D & _).
    apply run_op_memory in Y. cbn [word pg] in *. rewrite <- Hp, <- Hv in Y.
    rewrite (memory_traps_alike _ _ _ (M S) (R S) _ _ Y) in D. discriminate D.
  Qed.

  Lemma pg_T : traps_in_user_too pg.
  Proof.
    intros i S T S' U X _ Y. apply run_op_completes in X. destruct X as (NoTrap & _).
    apply run_op_other in Y. unfold traps_first in *. cbn [word pg] in *. rewrite U in NoTrap.
    cbn [is_user andb] in NoTrap. apply orb_false_iff in NoTrap. destruct NoTrap as [NoSvc NoStrap].
    rewrite NoSvc, <- andb_assoc, NoStrap, andb_false_r in Y. discriminate Y.
  Qed.

  Lemma all_confined i S T : execute pg i S = Completes T -> leaves_alone pg S T.
  Proof.
    intros X. apply run_op_completes in X. destruct X as (_ & v & q & _ & Len & ->).
    destruct (replaced (R S) v (E S) Len) as (B1 & _ & B2 & _). split; [exact B1 | exact B2].
  Qed.

  Lemma pg_K : confined pg.
  Proof. intros i S T _. apply all_confined. Qed.

  (** What an instruction does with what it sees decides its classes. *)

  Definition keeps_both i : Prop := forall m r v p v1 q1,
    does i m r v p = Some (v1, q1) -> psw_M q1 = m /\ psw_R q1 = r.
  Definition same_anywhere i : Prop := forall m r r' v p v1 q1 v2 q2,
    does i m r v p = Some (v1, q1) -> does i m r' v p = Some (v2, q2) -> v1 = v2 /\ psw_P q1 = psw_P q2.
  Definition same_in_modes i : Prop := forall m m' r v p v1 q1 v2 q2,
    does i m r v p = Some (v1, q1) -> does i m' r v p = Some (v2, q2) -> v1 = v2 /\ psw_P q1 = psw_P q2.

  Lemma not_control i : keeps_both i -> ~ control_sensitive pg i.
  Proof.
    intros Keeps (S & T & X & Ch). apply run_op_completes in X. destruct X as (_ & v & q & Do & Len & ->).
    destruct (Keeps _ _ _ _ _ _ Do) as (Hm & Hr). cbn in Ch. destruct Ch; congruence.
  Qed.

  Lemma not_location i : same_anywhere i -> ~ location_sensitive pg i.
  Proof.
    intros Same (S & T & S' & T' & [Hp Hv] & Hm & X & X' & D).
    apply run_op_completes in X. destruct X as (_ & v & q & Do & Len & ->).
    apply run_op_completes in X'. destruct X' as (_ & v' & q' & Do' & Len' & ->).
    cbn [word pg] in *. rewrite <- Hv, <- Hp, <- Hm in Do'.
    destruct (Same _ _ _ _ _ _ _ _ _ Do Do') as (<- & Pq).
    unfold differ in D. cbn [word pg E P] in D.
    destruct (replaced (R S) v (E S) Len) as (_ & V & _), (replaced (R S') v (E S') Len') as (_ & V' & _).
    rewrite V, V' in D. now destruct D.
  Qed.

  Lemma not_mode i : same_in_modes i -> ~ mode_sensitive pg i.
  Proof.
    intros Same (S & T & T' & X & X' & D).
    apply run_op_completes in X. destruct X as (_ & v & q & Do & Len & ->).
    apply run_op_completes in X'. destruct X' as (_ & v' & q' & Do' & Len' & ->).
    cbn [word pg M E P R] in *. destruct (Same _ _ _ _ _ _ _ _ _ Do Do') as (<- & Pq).
    unfold differ in D. cbn [word pg E P R] in D.
    destruct (replaced (R S) v (E S) Len) as (_ & V & _). rewrite V in D. now destruct D.
  Qed.

  Lemma unstrapped_innocuous i : is_strapped i = false -> innocuous pg i.
  Proof.
    intros U [Sens | [Sens | Sens]]; revert Sens;
      [apply not_control | apply not_location | apply not_mode]; red; intros;
      destruct i; try discriminate U; cbn in *; cases; try (cbn; auto; fail);
      now destruct (is_zero _).
  Qed.

  (** With its strap on, an instruction is privileged. *)
  Lemma strapped_privileged i : is_strapped i = true -> strap i = true -> privileged pg i.
  Proof.
    intros Has On. split.
    - intros S T U X. apply run_op_completes in X. destruct X as (NoTrap & _).
      unfold traps_first in NoTrap. cbn [word pg] in *. rewrite U, Has, On in NoTrap. now rewrite orb_true_r in NoTrap.
    - assert (forall n v, n < length v -> exists x : cell, nth_error v n = Some x) as Load.
      { intros n v Hn. apply nth_error_Some in Hn. destruct (nth_error v n); [eauto | easy]. }
      set (n := match i with LPSW a | SREL a | GREL a | GMODE a | DROP a => a | LRA a b => a + b | _ => 0 end).
      set (S := St (repeat (Word supervisor 0 0 0) (n + 1)) supervisor 0 (Rel 0 (n + 1))).
      assert (length (view (R S) (E S)) = n + 1) as Len.
      { cbn [S R E]. unfold view. cbn [l b skipn]. rewrite firstn_length, repeat_length. lia. }
      assert (exists v q, does i (M S) (R S) (view (R S) (E S)) (P S) = Some (v, q)) as (v & q & D).
      { generalize dependent (view (R S) (E S)). intros v Len.
        destruct i; try discriminate Has; cbn [does]; unfold store; subst n; simpl in Len;
          try (destruct (Load a v) as (x & ->); [lia |]);
          repeat match goal with
          | |- context [?x <? ?y] => destruct (Nat.ltb_spec x y); [| lia]
          end; eauto. }
      exists S. eexists. split; [reflexivity |]. cbn. unfold run_op.
      replace (traps_first i (M S)) with false by (destruct i; easy). now rewrite D.
  Qed.
End Straps.

(** ** Every strap on: Theorem 1 with nothing left open *)

Definition paper_machine : third_generation := pg (fun _ => true).

Lemma sensitive_is_privileged i : sensitive paper_machine i -> privileged paper_machine i.
Proof.
  intros Sens. destruct (is_strapped i) eqn:Has; [now apply strapped_privileged |].
  now apply (unstrapped_innocuous (fun _ => true)) in Has.
Qed.

Theorem paper_machine_hosts : virtual_machine_monitor paper_machine.
Proof.
  apply theorem_1; [exact sensitive_is_privileged | apply pg_R | apply pg_T | apply pg_K].
Qed.

(** Instructions without straps have no needless traps, so that efficiency is said of something. *)
Lemma no_needless i : is_strapped i = false -> no_needless_traps paper_machine i.
Proof.
  intros U S T S' X [Hp Hv] M'. apply run_op_completes in X. destruct X as (First & v & q & D & _).
  cbn [word paper_machine pg] in *.
  destruct (does i (M S') (R S') (view (R S') (E S')) (P S')) as [[v' q'] |] eqn:D'.
  - apply (run_op_does (fun _ => true) i S' v' q'); [| exact D'].
    unfold traps_first in *. rewrite U in *. now rewrite !andb_false_r, andb_false_l, orb_false_r in *.
  - rewrite <- Hp, <- Hv in D'.
    rewrite (memory_traps_alike _ _ _ (M S) (R S) _ _ D') in D. discriminate D.
Qed.

(** ** A guest that runs: a program of ten words, in two modes, with a trap of each kind

    0 old PSW   1 new PSW   2 GMODE 8   3 LPSW 9   4 SVC (in user mode)   5 GREL 8   6 JUMP 2
    8 data   9 the PSW of user mode *)
Definition guest_program : storage_state cell :=
  St [Word supervisor 0 0 0; Word supervisor 5 0 10; Word user 7 8 0; Word user 4 9 0; Word user 99 0 0;
      Word user 6 8 0; Word user 2 2 0; Word user 0 0 0; Word user 0 0 0; Word user 4 0 10]
     supervisor 2 (Rel 0 10).

(** A control program's part: its entry in supervisor mode at location 3, one more word, five words behind. *)
Definition control_part : control cell :=
  Control (Word supervisor 3 0 19) [Word supervisor 77 0 0] (repeat (Word user 5 5 5) 5).

Example guest_runs :
  map (fun n => (M (run (machine_of paper_machine) n guest_program), P (run (machine_of paper_machine) n guest_program)))
    (seq 0 6) =
  [(supervisor, 2); (supervisor, 3); (user, 4); (supervisor, 5); (supervisor, 6); (supervisor, 2)].
Proof. reflexivity. Qed.

Example host_follows :
  host_run (machine_of paper_machine) (paper paper_machine) (all_direct _) control_part 9
    (on paper_machine guest_program control_part) =
  on paper_machine (run (machine_of paper_machine) 5 guest_program) control_part.
Proof. reflexivity. Qed.

(** ** Interrupts, held off in supervisor mode

    Nothing left open: the paper's machine, which is interrupted in user mode alone, by an exchange of PSWs. *)
Definition takes_in_user (S : Machine.state (machine_of paper_machine)) : bool := is_user (M S).

Theorem paper_machine_with_interrupts :
  monitored_with_interrupts
    (held_machine (machine_of paper_machine) takes_in_user (exchange paper_machine))
    (held (machine_of paper_machine) (paper paper_machine) takes_in_user (exchange paper_machine))
    (held_direct _ _ takes_in_user (exchange paper_machine) (all_direct (paper paper_machine)))
    (comes _ takes_in_user (exchange paper_machine))
    (held_enter _ takes_in_user (exchange paper_machine) (exchange paper_machine)).
Proof.
  pose proof (classes_imply_A1 paper_machine sensitive_is_privileged (pg_R _) (pg_T _) (pg_K _)) as A1.
  apply theorem_1_with_held_interrupts.
  - apply paper_A0.
  - exact A1.
  - apply paper_A2.
  - apply A4_apart_if_told, paper_A4.
  - intros S S' p _ _ _. apply f_one_one.
  - apply paper_A5.
  - apply paper_A5_vector.
  - apply (A6_apart_if_told _ _ _ (paper_recover_irq paper_machine)), paper_A6.
  - apply (noticed_if_noted _ (paper paper_machine) _ (fun n : notes (paper paper_machine) => is_user (fst n))); [exact A1 | reflexivity].
Qed.

(** One that comes in supervisor mode waits: the program above is interrupted before its instruction at 4. *)
Example held_interrupt_waits :
  let events := fun n => match n with 0 => passed_event | _ => no_event end in
  map (fun n => let x := guest_run (held_machine (machine_of paper_machine) takes_in_user (exchange paper_machine))
                  (comes _ takes_in_user (exchange paper_machine)) events n (guest_program, false) in
                (M (fst x), P (fst x), snd x))
    (seq 0 6) =
  [(supervisor, 2, false); (supervisor, 2, true); (supervisor, 3, true); (user, 4, true); (supervisor, 5, false);
   (supervisor, 6, false)].
Proof. reflexivity. Qed.
