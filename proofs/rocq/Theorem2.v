(** * Theorem 2

    "A conventional third generation computer is recursively virtualizable if it is (a) virtualizable,
    and (b) a virtual machine monitor without any timing dependencies can be constructed for it."

    What a virtual machine map is, up to time, is a record ([is_map]); composing two gives one, and the
    induction over the steps of the machine in the middle is made here, inside the prover.  So control
    programs may be stacked to any depth.

    Choices:
    - Between levels the control program is a *program*: the machine in the middle runs it step by step.
      That it can be coded, and comes to an end, is a hypothesis ([coded]); [Instances/Recursive.v] meets
      it, to any depth.
    - "Without timing dependencies": the monitor maps guests whose course does not depend on clocks to
      states whose course does not ([keeps_untimed]).  A guest that reads a clock may tell the difference;
      nothing is claimed for it. *)

From Coq Require Import List Arith Lia Relations RelationClasses.
Require Import Popek.Machine Popek.ThirdGeneration Popek.Classes Popek.Map.
Require Import Popek.Premises Popek.Monitor Popek.Runs Popek.Theorem1.
Import ListNotations.

Section UpToTime.
  Variable m : machine.
  Variable same : state m -> state m -> Prop.   (* equal but for clocks *)
  Context {Eq : Equivalence same}.
  Implicit Types (S T U : state m).
  Infix "~~" := same (at level 70).

  (** Nothing on the whole course from S depends on a clock. *)
  Definition untimed S : Prop := forall n U, U ~~ run m n S -> step m U ~~ step m (run m n S).

  Lemma untimed_run S S' n : untimed S -> S' ~~ S -> run m n S' ~~ run m n S.
  Proof. intros U Same. induction n; [exact Same | simpl; now apply U]. Qed.

  Lemma untimed_same S S' : untimed S -> S' ~~ S -> untimed S'.
  Proof.
    intros U Same n X Hx. pose proof (untimed_run S S' n U Same) as Hn.
    transitivity (step m (run m n S)).
    - apply U. now rewrite Hx.
    - symmetry. now apply U.
  Qed.

  Lemma untimed_later S n : untimed S -> untimed (run m n S).
  Proof. intros U k X. rewrite <- !run_add. apply U. Qed.

  (** phi is a virtual machine map, up to time, from guests in [D] to states in [D'], and [guard] holds of
      the machine below at every moment (its control program is safe, say). *)
  Record is_map (D D' guard : state m -> Prop) (phi : state m -> state m) : Prop := {
    stays : forall S, D S -> D (step m S);
    into : forall S, D S -> D' (phi S);
    maps_one_one : forall S S', D S -> D S' -> phi S ~~ phi S' -> S ~~ S';
    maps_same : forall S S', D S -> D S' -> S ~~ S' -> phi S ~~ phi S';
    keeps_untimed : forall S, D S -> untimed S -> untimed (phi S);
    steps : forall S, D S -> untimed S -> exists h, 1 <= h /\ run m h (phi S) ~~ phi (step m S);
    guarded : forall S, D S -> untimed S -> forall h, guard (run m h (phi S))
  }.

  Lemma stays_run D D' guard phi S n : is_map D D' guard phi -> D S -> D (run m n S).
  Proof. intros Map H. induction n; [exact H | simpl; now apply (stays _ _ _ _ Map)]. Qed.

  (** Any number of steps: the guest's n-th state is reached, in n steps or more. *)
  Theorem map_runs D D' guard phi S n :
    is_map D D' guard phi -> D S -> untimed S -> exists h, n <= h /\ run m h (phi S) ~~ phi (run m n S).
  Proof.
    intros Map H U. induction n as [| n (h & B & IH)]; [exists 0; split; [lia | reflexivity] |].
    pose proof (stays_run _ _ _ _ S n Map H) as Hn. pose proof (untimed_later S n U) as Un.
    destruct (steps _ _ _ _ Map _ Hn Un) as (k & Bk & Step).
    exists (k + h). split; [lia |]. rewrite run_add. cbn [run].
    transitivity (run m k (phi (run m n S))); [| exact Step].
    apply untimed_run; [now apply (keeps_untimed _ _ _ _ Map) | exact IH].
  Qed.

  (** Composition: a virtual machine's virtual machine is one of the machine below. *)
  Theorem composition D D' D'' guard guard' phi psi :
    is_map D D' guard phi -> is_map D' D'' guard' psi ->
    is_map D D'' guard' (fun S => psi (phi S)).
  Proof.
    intros Inner Outer. split.
    - apply Inner.
    - intros S H. now apply (into _ _ _ _ Outer), (into _ _ _ _ Inner).
    - intros S S' H H' Same. apply (maps_one_one _ _ _ _ Inner); auto.
      apply (maps_one_one _ _ _ _ Outer); auto; now apply (into _ _ _ _ Inner).
    - intros S S' H H' Same. apply (maps_same _ _ _ _ Outer);
        [now apply (into _ _ _ _ Inner) .. | now apply (maps_same _ _ _ _ Inner)].
    - intros S H U. apply (keeps_untimed _ _ _ _ Outer);
        [now apply (into _ _ _ _ Inner) | now apply (keeps_untimed _ _ _ _ Inner)].
    - intros S H U.
      pose proof (into _ _ _ _ Inner _ H) as H'. pose proof (keeps_untimed _ _ _ _ Inner _ H U) as U'.
      destruct (steps _ _ _ _ Inner _ H U) as (h & B & Step).
      destruct (map_runs D' D'' guard' psi (phi S) h Outer H' U') as (k & Bk & Run).
      exists k. split; [lia |]. rewrite Run. apply (maps_same _ _ _ _ Outer); [| | exact Step].
      + now apply (stays_run D' D'' guard' psi).
      + apply (into _ _ _ _ Inner), (stays _ _ _ _ Inner), H.
    - intros S H U. apply (guarded _ _ _ _ Outer);
        [now apply (into _ _ _ _ Inner) | now apply (keeps_untimed _ _ _ _ Inner)].
  Qed.

  (** Theorem 2, to any depth: where every level has a map into the next, d levels have one. *)
  Fixpoint nest (phi : nat -> state m -> state m) (d : nat) : state m -> state m :=
    match d with 0 => fun S => S | Datatypes.S d => fun S => phi d (nest phi d S) end.

  Theorem theorem_2 (D guard : nat -> state m -> Prop) (phi : nat -> state m -> state m) :
    (forall j, is_map (D j) (D (Datatypes.S j)) (guard j) (phi j)) ->
    forall d, is_map (D 0) (D (Datatypes.S d)) (guard d) (nest phi (Datatypes.S d)).
  Proof.
    intros Level d. induction d as [| d IH]; [apply Level |].
    exact (composition _ _ _ _ _ _ _ IH (Level (Datatypes.S d))).
  Qed.

  (** ** From the premises to a map

      The control program is coded: where the hardware stops, its own course leads, in finitely many
      steps, to the image of the guest one step on. *)
  Section Coded.
    Variable v : technique m.
    Variable p : private v.

    Variable D : state m -> Prop.   (* the guests of this level *)

    Definition coded : Prop :=
      forall S c T, D S -> untimed S -> stops m (image v S p) c T ->
        exists j, run m j (deliver m c T) ~~ image v (step m S) p.

    Theorem map_from_premises (D' guard : state m -> Prop) :
      A2_fetch m v -> A1_fidelity m v -> coded ->
      (forall S, D S -> ok v S p) ->
      (* A3 *) (forall S, D S -> D (step m S)) ->
      (* A7 *) (forall S, D S -> D' (image v S p)) ->
      (* one-one, and a function, up to time *)
      (forall S S', D S -> D S' -> image v S p ~~ image v S' p -> S ~~ S') ->
      (forall S S', D S -> D S' -> S ~~ S' -> image v S p ~~ image v S' p) ->
      (* no timing dependencies *)
      (forall S, D S -> untimed S -> untimed (image v S p)) ->
      (* resource control *)
      (forall S, D S -> untimed S -> forall h, guard (run m h (image v S p))) ->
      is_map D D' guard (fun S => image v S p).
    Proof.
      intros A2 A1 Coded Ok A3 A7 One Same Untimed Guard. split; auto.
      intros S H U. destruct (completes_or_stops m (image v S p)) as [(T & C) | (c & T & C)].
      - exists 1. split; [lia |]. cbn [run]. rewrite (step_completes _ _ _ C).
        destruct (fidelity_commutes m v (all_direct v) p A2 A1 S T (Ok S H) eq_refl C) as [-> _].
        reflexivity.
      - destruct (Coded S c T H U C) as (j & Run). exists (j + 1). split; [lia |].
        rewrite run_add. cbn [run]. now rewrite (step_stops _ _ _ _ C).
    Qed.
  End Coded.

  (** ** From the premises to any depth

      What is asked of a machine is A1, A3, A4's first half, A7 and A9.  Of the control programs it is taken for
      granted that each keeps its notes in what is its own ([remember]), can do so for any guest, fits into the
      machine around it, and is coded. *)
  Section FromPremises.
    Variable v : technique m.
    Variable remember : nat -> notes v -> private v.   (* at each level: the part that holds these notes *)

    Definition hosted j S : Prop := ok v S (remember j (note v S)).
    Definition embed j S : state m := image v S (remember j (note v S)).
    Definition told_by_image j : Prop := forall S S', hosted j S -> hosted j S' ->
      embed j S ~~ embed j S' -> note v S = note v S'.
    Definition any_notes_kept j : Prop := forall S n, ok v S (remember j n) -> hosted j S.
    Definition coded_at j : Prop := forall S c T, hosted j S -> stops m (embed j S) c T ->
      exists k, run m k (deliver m c T) ~~ embed j (step m S).
    Definition room (fits : state m -> private v -> Prop) j : Prop := forall S, hosted j S ->
      fits (embed j S) (remember (Datatypes.S j) (note v (embed j S))).

    Hypothesis A3 : A3_closure m v.
    Hypothesis A9 : A9_no_clock m v same.
    Hypothesis A9t : A9_no_clock_trap m v same.
    Hypothesis A9g : A9_guests m v same.
    Hypothesis A9m : A9_map m v same.
    Hypothesis A9f : A9_fetch m v same.

    Lemma hosted_step j S : any_notes_kept j -> hosted j S -> hosted j (step m S).
    Proof.
      intros Keeps H. destruct A3 as [AfterNext AfterTrap].
      destruct (completes_or_stops m S) as [(T & C) | (c & T & C)].
      - rewrite (step_completes _ _ _ C). destruct C as (i & _ & X). eapply Keeps, AfterNext; eauto.
      - rewrite (step_stops _ _ _ _ C). eapply Keeps, AfterTrap; eauto.
    Qed.

    Lemma guest_step_same S S' p : ok v S p -> S ~~ S' -> step m S ~~ step m S'.
    Proof.
      intros O Same. pose proof (A9g _ _ _ O Same) as O'. assert (S' ~~ S) as Same' by now symmetry.
      destruct (completes_or_stops m S) as [(T & C) | (c & T & C)].
      - rewrite (step_completes _ _ _ C). destruct C as (i & F & X).
        destruct (A9 _ _ _ _ _ O Same X) as (T' & X' & TT).
        assert (completes m S' T') as C' by (exists i; split; [now apply (A9f _ _ _ _ O Same) | exact X']).
        now rewrite (step_completes _ _ _ C').
      - destruct (completes_or_stops m S') as [(T' & C') | (c' & T' & C')].
        + exfalso. destruct C' as (i & F' & X').
          pose proof (A9f _ _ _ _ O' Same' F') as F.
          destruct (A9 _ _ _ _ _ O' Same' X') as (U & X & _).
          destruct C as [[F0 _] | (i0 & F0 & X0)]; rewrite F in F0; [easy | inversion F0; subst; congruence].
        + rewrite (step_stops _ _ _ _ C), (step_stops _ _ _ _ C').
          exact (A9t S S' p c c' T T' O Same C C').
    Qed.

    Lemma guests_untimed j S : any_notes_kept j -> hosted j S -> untimed S.
    Proof.
      intros Keeps H n U Same.
      assert (hosted j (run m n S)) as Hn.
      { clear U Same. induction n as [| n IH]; [exact H | cbn [run]; now apply hosted_step]. }
      symmetry. eapply guest_step_same; [exact Hn | now symmetry].
    Qed.

    Lemma level_from_premises fits j :
      A1_fidelity m v -> A2_fetch m v -> A4_image_tells m v same -> A7_nesting m v fits ->
      told_by_image j -> any_notes_kept j -> any_notes_kept (Datatypes.S j) -> coded_at j -> room fits j ->
      is_map (hosted j) (hosted (Datatypes.S j)) (fun _ => True) (embed j).
    Proof.
      intros A1 A2 A4 A7 Told Keeps Keeps' Coded Room.
      assert (forall S, hosted j S -> hosted (Datatypes.S j) (embed j S)) as Into
        by (intros S H; eapply A7; [exact H | now apply Room]).
      split; auto using hosted_step.
      - intros S S' H H' Same. pose proof (Told S S' H H' Same) as N.
        eapply A4; [exact H | unfold hosted in H'; rewrite N; exact H' | exact N |].
        unfold embed in Same. now rewrite <- N in Same.
      - intros S S' H _ Same. destruct (A9m _ _ _ H Same) as [I N]. unfold embed. now rewrite <- N.
      - intros S H _. apply (guests_untimed (Datatypes.S j)); auto.
      - intros S H _. destruct (completes_or_stops m (embed j S)) as [(T & C) | (c & T & C)].
        + exists 1. split; [lia |]. cbn [run]. rewrite (step_completes _ _ _ C).
          destruct (fidelity_commutes m v (all_direct v) _ A2 A1 S T H eq_refl C) as [-> N].
          unfold embed. now rewrite N.
        + destruct (Coded S c T H C) as (k & Run). exists (k + 1). split; [lia |].
          rewrite run_add. cbn [run]. now rewrite (step_stops _ _ _ _ C).
    Qed.

    (** Theorem 2 as a machine is asked it: d + 1 control programs, one above the other. *)
    Theorem theorem_2_from_premises fits d :
      A1_fidelity m v -> A2_fetch m v -> A4_image_tells m v same -> A7_nesting m v fits ->
      (forall j, j <= Datatypes.S d -> any_notes_kept j) ->
      (forall j, j <= d -> told_by_image j /\ coded_at j /\ room fits j) ->
      is_map (hosted 0) (hosted (Datatypes.S d)) (fun _ => True) (nest embed (Datatypes.S d)).
    Proof.
      intros A1 A2 A4 A7 Keeps Levels.
      assert (forall j, j <= d ->
        is_map (hosted j) (hosted (Datatypes.S j)) (fun _ => True) (embed j)) as Level.
      { intros j B. destruct (Levels j B) as (Told & Coded & Room).
        apply (level_from_premises fits); auto with arith. }
      clear Keeps Levels. induction d as [| d IH]; [now apply Level |].
      refine (composition _ _ _ _ _ _ _ (IH _) (Level (Datatypes.S d) (le_n _))). auto.
    Qed.
  End FromPremises.
End UpToTime.

(** A machine without clocks: equal but for clocks is equal, and every course is untimed. *)
Lemma clockless m (S : state m) : untimed m eq S.
Proof. now intros n U ->. Qed.
