(** * Choices: where the paper is vague, and what follows

    Each section takes the paper by the letter where the development does not, and shows what happens. *)

From Coq Require Import List Arith Lia.
Require Import Popek.Machine Popek.ThirdGeneration Popek.Classes Popek.Map.
Require Import Popek.Premises Popek.Monitor Popek.Runs Popek.Theorem1.
Require Import Popek.Instances.PaperMachine Popek.Instances.SilentDrop Popek.Counters.Hypotheses.
Import ListNotations.

(** ** Location sensitivity "with the same bound"

    The paper compares R = (l, b) with (l + x, b).  An instruction that reads the bound is then not
    sensitive; but the bound has to be cut, and the guest sees that. *)

Definition location_sensitive_letter t i : Prop :=
  exists S T S' T', alike t S S' /\ M S = M S' /\ b (R S) = b (R S') /\
    execute t i S = Completes T /\ execute t i S' = Completes T' /\ differ t S T S' T'.

(** The bound goes to where the program sees it. *)
Definition show_bound (S : storage_state cell) : ending cell :=
  match view (R S) (E S) with
  | [] => Traps memory_trap
  | _ :: v => Completes (St (replace_view (R S) (Word user (b (R S)) 0 0 :: v) (E S)) (M S) (P S + 1) (R S))
  end.

Lemma show_bound_completes S T : show_bound S = Completes T ->
  exists y v, view (R S) (E S) = y :: v /\
    T = St (replace_view (R S) (Word user (b (R S)) 0 0 :: v) (E S)) (M S) (P S + 1) (R S) /\
    view (R S) (E T) = Word user (b (R S)) 0 0 :: v.
Proof.
  unfold show_bound. destruct (view (R S) (E S)) as [| y v] eqn:V; [discriminate |].
  intros H. inversion H. exists y, v. repeat split. cbn [E].
  now apply replaced; rewrite V.
Qed.

Lemma show_bound_size (i : unit) S T : show_bound S = Completes T -> length (E T) = length (E S).
Proof.
  intros X. apply show_bound_completes in X. destruct X as (y & v & V & -> & _). cbn [E].
  now apply replaced; rewrite V.
Qed.
Definition bound_shower : third_generation := only show_bound show_bound_size.

Theorem bound_letter :
  (forall i, ~ control_sensitive bound_shower i) /\ (forall i, ~ mode_sensitive bound_shower i) /\
  (forall i, ~ location_sensitive_letter bound_shower i) /\ references_relocated bound_shower /\
  traps_in_user_too bound_shower /\ confined bound_shower /\ ~ virtual_machine_monitor bound_shower.
Proof.
  split; [| split; [| split; [| split; [| split; [| split]]]]].
  - intros i (S & T & X & Ch). apply show_bound_completes in X. destruct X as (y & v & V & -> & _). now destruct Ch.
  - intros i (S & T & T' & X & X' & D).
    apply show_bound_completes in X, X'. destruct X as (y & v & V & -> & W), X' as (y' & v' & V' & -> & W').
    unfold differ in D. cbn [word bound_shower only E P R M] in *. rewrite V in V'. inversion V'. subst.
    rewrite W in D. now destruct D.
  - intros i (S & T & S' & T' & [Hp Hv] & _ & Hb & X & X' & D).
    apply show_bound_completes in X, X'. destruct X as (y & v & V & -> & W), X' as (y' & v' & V' & -> & W').
    unfold differ in D. cbn [word bound_shower only] in *. rewrite V, V' in Hv. inversion Hv. subst.
    rewrite W, W' in D. cbn [P] in D. rewrite Hp, Hb in D. now destruct D.
  - intros i S T S' _ X [_ Hv] Y. apply show_bound_completes in X. destruct X as (y & v & V & _).
    cbn [execute bound_shower only] in Y. unfold show_bound in Y. cbn [word bound_shower only] in *.
    rewrite <- Hv, V in Y. discriminate Y.
  - intros i S T S' _ _ _ Y. cbn [execute bound_shower only] in Y. unfold show_bound in Y.
    now destruct (view (@R cell S') (@E cell S')).
  - intros i S T _ X. apply show_bound_completes in X. destruct X as (y & v & V & -> & _).
    destruct (replaced (R S) (Word user (b (R S)) 0 0 :: v) (E S)) as (B1 & _ & B2 & _);
      [exact (eq_sym (f_equal (@length cell) V)) |].
    split; [exact B1 | exact B2].
  - intros V. destruct (monitor_needs bound_shower small_part V eq_refl
      (St [Word user 0 0 0] user 0 (Rel 0 7)) _ eq_refl eq_refl (ex_intro _ tt (conj eq_refl eq_refl))) as [H _].
    discriminate H.
Qed.

(** ** Control sensitivity with only "no memory trap"

    With a trap as a state transformation, the supervisor call changes M and R without a memory trap. *)

Definition effect t (i : opcode t) (S : storage_state (word t)) : storage_state (word t) :=
  match execute t i S with Completes T => T | Traps _ => exchange t S end.
Definition control_sensitive_letter t i : Prop :=
  exists S, execute t i S <> Traps memory_trap /\ (M (effect t i S) <> M S \/ R (effect t i S) <> R S).

Theorem supervisor_call_letter :
  control_sensitive_letter paper_machine SVC /\ ~ privileged paper_machine SVC.
Proof.
  split.
  - exists (St [Word user 0 0 0; Word supervisor 0 0 0] user 0 (Rel 0 2)). split; [discriminate | now left].
  - intros [_ (S & T & _ & X)]. discriminate X.
Qed.

(** ** Privileged, by pairs neither of which memory-traps

    Given R this is no weaker: where an instruction completes in user mode, its twin in supervisor mode
    does not memory-trap. *)

Definition privileged_letter t i : Prop :=
  forall e p r, let at_mode m := St e m p r : storage_state (word t) in
    execute t i (at_mode supervisor) <> Traps memory_trap ->
    execute t i (at_mode user) <> Traps memory_trap ->
    (exists c, execute t i (at_mode user) = Traps c) /\
    (exists T, execute t i (at_mode supervisor) = Completes T).

Theorem pair_letter t i : references_relocated t -> privileged_letter t i ->
  forall S T, M S = user -> execute t i S <> Completes T.
Proof.
  intros Refs Letter S T U X.
  destruct (Letter (E S) (P S) (R S)) as [(c & Y) _]; destruct S as [e m p r]; cbn in U; subst m; cbn [E P R] in *.
  - now apply (Refs i (St e user p r) T).
  - rewrite X. discriminate.
  - rewrite X in Y. discriminate.
Qed.

(** Without R it is: this instruction memory-traps in supervisor mode, always, and changes its mode in
    user mode, silently. *)
Definition odd_pair (S : storage_state cell) : ending cell :=
  match M S with supervisor => Traps memory_trap | user => Completes (St (E S) supervisor (P S) (R S)) end.
Lemma odd_pair_size (i : unit) S T : odd_pair S = Completes T -> length (E T) = length (E S).
Proof. unfold odd_pair. destruct (M S); intros H; now inversion H. Qed.

Theorem pair_letter_lets_through :
  privileged_letter (only odd_pair odd_pair_size) tt /\ ~ privileged (only odd_pair odd_pair_size) tt.
Proof.
  split; [now intros e p r at_mode H |].
  intros [Never _]. now apply (Never (somewhere user) (somewhere supervisor)).
Qed.

(** ** The bound is cut

    With R = (l + k, b), as the paper has it, a guest whose bound reaches beyond its storage writes what
    lies behind it. *)

Definition f_uncut t (S : storage_state (word t)) (p : control (word t)) : storage_state (word t) :=
  St (low t S p ++ E S ++ behind p) user (P S) (Rel (k p + l (R S)) (b (R S))).

Definition reaching : storage_state cell :=
  St [Word user 0 2 0; Word user 5 5 5] user 0 (Rel 0 9).   (* MOVE 2, 0 in a storage of two words *)
Definition guarded_part : control cell := Control (Word supervisor 3 0 6) [] [Word supervisor 1 2 3].

Theorem uncut_bound :
  (exists c, execute paper_machine (MOVE 2 0) reaching = Traps c) /\
  exists h, execute paper_machine (MOVE 2 0) (f_uncut paper_machine reaching guarded_part) = Completes h /\
    kept paper_machine guarded_part h <> kept paper_machine guarded_part (f_uncut paper_machine reaching guarded_part).
Proof. split; [now exists memory_trap | eexists; split; [reflexivity | discriminate]]. Qed.

(** ** M and R are noted

    Without the note two guests have one image, and nothing recovers them. *)

Definition f_unnoted t (S : storage_state (word t)) (p : control (word t)) : storage_state (word t) :=
  St (blank t :: entry p :: blank t :: rest p ++ E S ++ behind p) user (P S) (cut (R S) (length (E S)) (k p)).

Theorem no_note p :
  f_unnoted paper_machine (somewhere user) p = f_unnoted paper_machine (somewhere supervisor) p /\
  somewhere user <> somewhere supervisor /\
  ~ exists recover, forall S, recover (f_unnoted paper_machine S p) = S.
Proof.
  split; [reflexivity | split; [discriminate |]].
  intros (recover & Rec). pose proof (Rec (somewhere user)) as H.
  change (f_unnoted paper_machine (somewhere user) p) with (f_unnoted paper_machine (somewhere supervisor) p) in H.
  rewrite Rec in H. discriminate H.
Qed.

(** ** k >= 3: the note cannot be in E[0]

    There the trap stores the PSW, and the note is gone when the dispatcher has control. *)

Definition f_in_scratch t (S : storage_state (word t)) (p : control (word t)) : storage_state (word t) :=
  St (note_word t S :: entry p :: rest p ++ E S ++ behind p) user (P S)
     (cut (R S) (length (E S)) (2 + length (rest p))).

Theorem note_in_scratch p :
  ~ exists recover, forall S, recover (exchange paper_machine (f_in_scratch paper_machine S p)) = S.
Proof.
  intros (recover & Rec). pose proof (Rec (somewhere user)) as H.
  change (exchange paper_machine (f_in_scratch paper_machine (somewhere user) p)) with
    (exchange paper_machine (f_in_scratch paper_machine (somewhere supervisor) p)) in H.
  rewrite Rec in H. discriminate H.
Qed.

(** ** One routine for all instructions

    A routine that sees the entry state alone, and is to interpret whatever privileged instruction
    trapped, gives any two the same effect: the trap stores nothing of which it was. *)

Theorem one_routine_for_all t (routine : storage_state (word t) -> storage_state (word t)) :
  (forall i S p T c, execute t i (f t S p) = Traps c -> execute t i S = Completes T ->
     routine (exchange t (f t S p)) = f t T p) ->
  forall i j S p T U c d, execute t i (f t S p) = Traps c -> execute t j (f t S p) = Traps d ->
    execute t i S = Completes T -> execute t j S = Completes U -> T = U.
Proof.
  intros H i j S p T U c d Ti Tj Xi Xj. apply (f_one_one t T U p).
  now rewrite <- (H i S p T c), <- (H j S p U d).
Qed.

Theorem no_routine_for_all : ~ exists routine, forall i S p T c,
  execute paper_machine i (f paper_machine S p) = Traps c -> execute paper_machine i S = Completes T ->
  routine (exchange paper_machine (f paper_machine S p)) = f paper_machine T p.
Proof.
  intros (routine & H).
  pose proof (one_routine_for_all paper_machine routine H (DROP 1) (DROP 2) (somewhere supervisor) small_part
    _ _ _ _ eq_refl eq_refl eq_refl eq_refl) as Same.
  discriminate Same.
Qed.
